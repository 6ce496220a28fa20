//! The connections between the two nodes, and what is on its way in them.

use super::*;

impl Shadow {
    /// The next message for a node, heartbeats aside.
    fn next(&mut self, wire: usize, slot: usize) -> Result<Message, String> {
        let queue = &mut self.wires[wire].queue[slot];
        queue.retain(|m| !matches!(m, Message::Heartbeat { .. }));
        let message = queue.pop_front();
        message.ok_or_else(|| format!("nothing is on its way to node {slot}"))
    }

    pub(super) fn deliver(&mut self, wire: usize, slot: usize) -> Result<Message, String> {
        let message = self.next(wire, slot)?;
        let conn = ConnId(wire as u64);
        let copy = message.clone();
        self.feed(slot, Event::Received { conn, message })?;
        Ok(copy)
    }

    pub(super) fn hang_up(&mut self, wire: usize, slot: usize) -> Checked {
        let Some(end) = self.wires.get_mut(wire) else {
            return Ok(());
        };
        if std::mem::replace(&mut end.open[slot], false) {
            end.queue[slot].clear();
            let conn = ConnId(wire as u64);
            self.feed(slot, Event::ChannelDown { conn })?;
        }
        Ok(())
    }

    pub(super) fn dial(&mut self, slot: usize) -> Checked {
        let proc = self.proc(slot)?;
        let given_up = |at: u64| proc.ms >= at + DIAL_MS;
        if proc.dialed.is_some_and(given_up) {
            proc.dialed = None;
        }
        self.tick_until(slot, |p| p.dialed.is_some())?;
        self.proc(slot)?.dialed = None;
        let index = self.wires.len();
        self.wires.push(Wire {
            open: [true; 2],
            cut: false,
            queue: Default::default(),
        });
        self.calls[slot] = index;
        let conn = ConnId(index as u64);
        for (slot, dialed) in [(1 - slot, false), (slot, true)] {
            let nonce = index as u128 + 1;
            let event = Event::ChannelUp {
                conn,
                dialed,
                nonce,
            };
            self.feed(slot, event)?;
        }
        self.deliver(index, 1 - slot)?;
        let welcomes = |m: &Message| matches!(m, Message::Welcome { .. });
        if self.wires[index].queue[slot].iter().any(welcomes) {
            self.sessions[1 - slot] = index;
        }
        Ok(())
    }

    pub(super) fn called(&mut self, slot: usize, before: &World, at: Id) -> Checked {
        let wire = self.calls[slot];
        let welcome = before.node(at).call.is_some_and(|c| c.welcome.is_some());
        self.deliver(wire, slot)?;
        // The answer may have made it start: then it hangs up before the welcome.
        if self.wires[wire].open[slot] {
            let second = self.deliver(wire, slot)?;
            if matches!(second, Message::Welcome { .. }) != welcome {
                return Err(format!(
                    "the model's call is welcome: {welcome}, {second:?}"
                ));
            }
        }
        if !welcome {
            self.hang_up(wire, slot)?;
        }
        Ok(())
    }
}
