//! What an entry of the ring is about, packed into its 64 bits of user data.
//!
//! Layout: kind (8 bits) | index of the socket or listener (24) | generation (32).

use super::SocketId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Accept(u32),
    CancelAccept,
    Receive(SocketId),
    CancelReceive(SocketId),
    Send(SocketId),
    CancelSend(SocketId),
    Tick,
    MoveTick,
    CancelEverything,
    Doorbell,
}

const SOCKET_BITS: u64 = (1 << 56) - 1;

impl Op {
    pub fn user_data(self) -> u64 {
        let (kind, rest) = match self {
            Op::Accept(listener) => (1, u64::from(listener)),
            Op::CancelAccept => (2, 0),
            Op::Receive(socket) => (3, socket.0),
            Op::CancelReceive(socket) => (4, socket.0),
            Op::Send(socket) => (5, socket.0),
            Op::CancelSend(socket) => (6, socket.0),
            Op::Tick => (7, 0),
            Op::MoveTick => (8, 0),
            Op::CancelEverything => (9, 0),
            Op::Doorbell => (10, 0),
        };
        kind << 56 | rest
    }

    pub fn from_user_data(user_data: u64) -> Op {
        let rest = user_data & SOCKET_BITS;
        match user_data >> 56 {
            1 => Op::Accept(rest as u32),
            2 => Op::CancelAccept,
            3 => Op::Receive(SocketId(rest)),
            4 => Op::CancelReceive(SocketId(rest)),
            5 => Op::Send(SocketId(rest)),
            6 => Op::CancelSend(SocketId(rest)),
            7 => Op::Tick,
            8 => Op::MoveTick,
            9 => Op::CancelEverything,
            10 => Op::Doorbell,
            kind => unreachable!("no entry has the kind {kind}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_goes_round() {
        let socket = SocketId((0xab_cdef << 32) | 0xffff_fffe);
        for op in [Op::Accept(u32::MAX), Op::CancelAccept, Op::Receive(socket), Op::CancelReceive(socket)]
            .into_iter()
            .chain([Op::Send(socket), Op::CancelSend(socket), Op::Tick, Op::MoveTick])
            .chain([Op::CancelEverything, Op::Doorbell])
        {
            assert_eq!(Op::from_user_data(op.user_data()), op);
        }
    }
}
