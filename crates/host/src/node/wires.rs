//! The network cards' ports: what comes from them, and what they are told.

use super::NodeLoop;
use crate::marks::Place;
use crate::port::PortEvent;
use twinvm_protocol::{NoteLevel, Position};
use twinvm_replica::Event;

impl NodeLoop {
    /// Tells the ports what the guest does by itself with what it receives.
    pub(super) fn tell_ports(&mut self) {
        for (device, port) in &mut self.ports {
            port.guest_takes(self.replica.net_offloads(*device));
        }
    }

    /// Next hop of a frame from the wire: the replica, at this slice end. A frame for
    /// which the guest has no room waits here and holds back those behind it.
    pub(super) fn take_frame(&mut self, wire: usize) -> bool {
        let device = self.ports[wire].0;
        if self.waiting_frames[wire].is_none() {
            match self.inputs.wires[wire].try_recv() {
                Ok(PortEvent::Frame(bytes)) => self.waiting_frames[wire] = Some(bytes),
                Ok(PortEvent::Lost { why }) => {
                    self.journal.note(NoteLevel::Warn, &why);
                    return true;
                }
                Ok(PortEvent::Reconnected) => {
                    let address = &self.options.wires[wire].address;
                    self.journal.line(&format!("{address} is there again"));
                    self.replica.announce_again();
                    self.perform();
                    return true;
                }
                Ok(PortEvent::Note { text }) => {
                    self.journal.note(NoteLevel::Warn, &text);
                    return true;
                }
                Err(_) => return false,
            }
        }
        if !self.replica.net_room(device) {
            return false;
        }
        match self.waiting_frames[wire].take() {
            Some(bytes) => {
                self.marks.note(Place::Packet, Position(0));
                self.apply(Event::Frame { device, bytes });
                true
            }
            None => false,
        }
    }
}
