//! Who asks to follow, as the last word of HAYPILE-FOLLOW says it: a node, or a capture.
//!
//! A word and no message, so that a node that knows no captures refuses one, and never takes it for a replica.
//! Must not know what is said afterwards.

use crate::resp::number;

/// Who follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A node that keeps what it is sent, and serves clients on this port.
    Node { port: u16 },
    /// One that reads the records and keeps nothing: it is nobody's replica, and no write waits for it.
    Capture(Copies),
}

/// What a capture is sent of slots whose records it lacks and the log has no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// Where they stand, and none of their rows.
    Positions,
    /// The same, and of every slot that it does not name: for a capture that begins with what comes now.
    PositionsOfAll,
    /// What any follower is sent.
    Rows,
}

impl Peer {
    /// None if it is no such word.
    pub fn parse(word: &[u8]) -> Option<Peer> {
        match word {
            b"capture" => Some(Peer::Capture(Copies::Positions)),
            b"capture-now" => Some(Peer::Capture(Copies::PositionsOfAll)),
            b"capture-rows" => Some(Peer::Capture(Copies::Rows)),
            port => {
                let port = number::parse_i64(port).and_then(|port| u16::try_from(port).ok())?;
                Some(Peer::Node { port })
            }
        }
    }

    pub fn word(self) -> String {
        match self {
            Peer::Node { port } => port.to_string(),
            Peer::Capture(Copies::Positions) => "capture".into(),
            Peer::Capture(Copies::PositionsOfAll) => "capture-now".into(),
            Peer::Capture(Copies::Rows) => "capture-rows".into(),
        }
    }

    /// Of slots that would be copied it is sent the positions alone.
    pub fn positions_only(self) -> bool {
        matches!(self, Peer::Capture(Copies::Positions | Copies::PositionsOfAll))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_says_who_it_is_and_no_port_is_a_capture() {
        let captures = [Copies::Positions, Copies::PositionsOfAll, Copies::Rows].map(Peer::Capture);
        for peer in captures.into_iter().chain([0, 9221, u16::MAX].map(|port| Peer::Node { port })) {
            assert_eq!(Peer::parse(peer.word().as_bytes()), Some(peer));
        }
        for word in ["", "-1", "65536", "Capture", "capture ", "capture-", "now"] {
            assert_eq!(Peer::parse(word.as_bytes()), None, "{word}");
        }
    }
}
