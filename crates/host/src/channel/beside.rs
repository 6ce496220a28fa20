//! What a reader does by itself with a frame: batches of the log are stored and acked on the spot
//! while the loop lets it ([`twinvm_replica::Intake`]), everything else is the loop's.

use twinvm_protocol::{ConnId, Message};
use twinvm_replica::{HostTime, Stored, Taken};

use super::connection::Connection;
use super::{ChannelEvent, Shared};
use crate::marks::Place;
use crate::time::mono_ns;

/// What a connection's reader remembers.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    /// Something else went to the loop since the last event about a batch: the order has to stay.
    after_other: bool,
}

impl Beside {
    /// What the loop is told of a frame, if it is to be told.
    pub(crate) fn take_in(
        &mut self,
        connection: &Connection,
        conn: ConnId,
        shared: &Shared,
        message: Message,
    ) -> Option<ChannelEvent> {
        shared.marks.message(&message, Place::Came, Place::AckCame);
        match self.stored(connection, conn, shared, &message) {
            Taken::Yes(None) => None,
            Taken::Yes(Some(number)) => {
                self.after_other = false;
                Some(ChannelEvent::Stored { conn, number })
            }
            Taken::No => {
                self.after_other = true;
                Some(ChannelEvent::Received { conn, message })
            }
        }
    }

    fn stored(
        &self,
        connection: &Connection,
        conn: ConnId,
        Shared { intake, marks, .. }: &Shared,
        message: &Message,
    ) -> Taken {
        let Message::Log {
            first,
            end,
            released,
            batch,
        } = message
        else {
            return Taken::No;
        };
        let now = HostTime { mono_ns: mono_ns() };
        if !intake.wants(conn, *first, now) {
            return Taken::No;
        }
        // What is wrong with it the loop says.
        let Ok(stored) = Stored::decode(*first, *end, *released, batch) else {
            return Taken::No;
        };
        intake.take(conn, stored, batch.len(), self.after_other, now, |ack| {
            marks.message(&ack, Place::Sending, Place::Stored);
            // It queues or refuses, and never waits.
            let _ = connection.send(ack);
        })
    }
}
