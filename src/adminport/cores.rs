//! Questions to all cores from a thread that is none.

use crate::conn::moving::Parcel;
use crate::limits;
use crate::runtime::doorbell::Doorbell;
use crate::runtime::lanes::Lanes;
use crate::runtime::sleeper::Sleeper;
use crate::shard::mesh::{Ask, Message, Tell};
use crate::slot::CoreId;
use std::time::Instant;

/// This thread's place among the cores' lanes: the last one.
pub struct Cores {
    lanes: Lanes<Parcel>,
    doorbells: Vec<Doorbell>,
    sleeper: Sleeper,
    cores: usize,
    ticket: u64,
}

impl Cores {
    /// `lanes`: those behind the last core's. `doorbells`: the cores'.
    pub fn new(lanes: Lanes<Parcel>, doorbells: Vec<Doorbell>, sleeper: Sleeper, cores: u16) -> Cores {
        let cores = usize::from(cores);
        assert!(lanes.core() == cores && doorbells.len() >= cores, "the cores come first");
        Cores { lanes, doorbells, sleeper, cores, ticket: 0 }
    }

    /// Every core's answer, in their order. Waits no longer than a bound: then it says who is silent.
    pub fn ask(&mut self, ask: &Ask) -> Result<Vec<Tell>, String> {
        self.ticket += 1;
        let from = CoreId(self.cores as u16);
        for core in 0..self.cores {
            if self.lanes.congested(core) {
                return Err(format!("core {core} has not taken earlier questions\n"));
            }
            let message = Message::Ask { from, ticket: self.ticket, ask: ask.clone() };
            self.lanes.send(core, Parcel::Message(message));
        }
        let doorbells = &self.doorbells;
        self.lanes.flush(|core| doorbells[core].ring());
        let mut tells: Vec<Option<Tell>> = (0..self.cores).map(|_| None).collect();
        let until = Instant::now() + limits::ADMIN_ANSWER_WAIT;
        loop {
            let ticket = self.ticket;
            self.lanes.receive(limits::MESSAGES_PER_TURN_MAX, |_, parcel| {
                // An answer to a question that was given up is of no use any more.
                if let Parcel::Message(Message::Tell { ticket: of, core, tell }) = parcel
                    && of == ticket
                {
                    tells[usize::from(core.0)] = Some(tell);
                }
            });
            if tells.iter().all(Option::is_some) {
                return Ok(tells.into_iter().flatten().collect());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let silent = tells.iter().enumerate().filter(|(_, tell)| tell.is_none());
                return Err(silent.map(|(core, _)| format!("core {core} does not answer\n")).collect());
            }
            let lanes = &self.lanes;
            self.sleeper
                .sleep(left, || lanes.waiting())
                .map_err(|error| format!("waiting for the cores failed: {error}\n"))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::lanes::Mesh;

    /// Two cores of which the first answers each question once and the second never does.
    #[test]
    fn a_core_that_stands_still_is_named() {
        let mut mesh = Mesh::new(3, 4);
        let behind = mesh.pop().expect("made a line above");
        let _silent = mesh.pop();
        let mut answering = mesh.pop().expect("made above");
        let sleeper = Sleeper::new().expect("an eventfd");
        let (bell, bells) = (sleeper.doorbell(), vec![sleeper.doorbell(); 2]);
        let mut cores = Cores::new(behind, bells, sleeper, 2);
        let core = std::thread::spawn(move || {
            let mut questions = Vec::new();
            while questions.is_empty() {
                answering.receive(4, |_, parcel| questions.push(parcel));
                std::thread::yield_now();
            }
            let Some(Parcel::Message(Message::Ask { ticket, .. })) = questions.pop() else {
                panic!("a question comes");
            };
            answering.send(2, Parcel::Message(Message::Tell { ticket, core: CoreId(0), tell: Tell::Done }));
            answering.flush(|_| bell.ring());
        });
        let silent = cores.ask(&Ask::Stats).map(|tells| tells.len());
        assert_eq!(silent, Err("core 1 does not answer\n".to_owned()));
        core.join().expect("it has answered");
    }
}
