//! One event, and what a node asks for then.

use super::*;

impl World {
    /// Hands one event to a node and carries out what it asks, into queues.
    pub(crate) fn apply(&mut self, at: usize, event: Event) {
        let Some(side) = &mut self.sides[at] else {
            return;
        };
        if side.exited.is_some() {
            return;
        }
        self.env.at = at;
        side.replica.apply(&mut self.env, event);
        while let Some(action) = self.sides[at]
            .as_mut()
            .and_then(|s| s.replica.next_action())
        {
            self.carry_out(at, action);
        }
    }

    fn carry_out(&mut self, at: usize, action: Action) {
        match action {
            Action::Dial => self.dial(at),
            Action::Send { conn, message } => {
                let Some(conn) = self.far_end(at, conn) else {
                    return;
                };
                let mut message = message;
                if let Message::Side { bytes } = &mut message {
                    self.side(1 - at).asked += 1;
                    if self.mute {
                        return;
                    }
                    if let (A, Some(instead)) = (at, &self.instead) {
                        bytes.clone_from(instead);
                    }
                }
                let inbox = &mut self.side(1 - at).inbox;
                inbox.push_back(Incoming::Message { conn, message });
            }
            Action::Close { conn, .. } => {
                if let Some(far) = self.far_end(at, conn) {
                    let inbox = &mut self.side(1 - at).inbox;
                    inbox.push_back(Incoming::Down { conn: far });
                }
                self.links.retain(|link| link.ends[at] != Some(conn));
            }
            Action::ArbiterRead { req } => self.side(at).questions.push_back((req, None)),
            Action::ArbiterCas {
                req,
                expect,
                record,
            } => {
                let questions = &mut self.side(at).questions;
                questions.push_back((req, Some((expect, record))));
            }
            Action::ClaimDisks { generation, .. } => {
                let mut dice = self.env.dice;
                let server = self.server.as_mut().expect("there is a shared disk");
                server.claim(at, generation, || {
                    dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    dice >> 63 == 1
                });
                self.env.dice = dice;
            }
            Action::ReadDisks => {
                let server = self.server.as_mut().expect("there is a shared disk");
                server.read_beside(at);
            }
            Action::Disk(request) => self.disk(at, Work::Request(request)),
            Action::FlushDisks { flush } => self.disk(at, Work::Flush(flush)),
            Action::DiskPoint {
                point,
                flush,
                in_flight,
            } => {
                self.points[at].push(point);
                self.in_flight[at].push(in_flight);
                self.disk(at, Work::Flush(flush));
            }
            Action::ClearDisks { point } => self.cleared[at].push(point),
            Action::DoubtDisks => self.doubts[at] += 1,
            Action::ForgetDisks => self.forget_disk(at),
            Action::MarkDisks { .. } => unreachable!("there are no disks"),
            Action::PersistGeneration { generation } => self.generations[at] = generation,
            Action::Transmit { bytes, .. } => {
                // The port's work: nothing is asked of it by this guest and by announcements.
                let (header, frame) = bytes.split_at(NET_HEADER_BYTES);
                assert_eq!(header, [0; NET_HEADER_BYTES]);
                self.wire.push((at, frame.to_vec()));
                self.side(at).wire.push(frame.to_vec());
            }
            Action::Console(text) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                self.side(at).printed.push_str(&text);
            }
            Action::RoleChanged { .. } | Action::CtlAnswer { .. } => {}
            Action::Note { text, .. } => self.side(at).notes.push(text),
            Action::Exit { reason } => {
                self.side(at).exited = Some(reason);
                for link in std::mem::take(&mut self.links) {
                    if let (Some(conn), Some(peer)) = (link.ends[1 - at], &mut self.sides[1 - at]) {
                        peer.inbox.push_back(Incoming::Down { conn });
                    }
                }
            }
            Action::Fatal { what } => panic!("node {at} found a fault of its own: {what}"),
        }
    }

    pub(super) fn far_end(&self, at: usize, conn: ConnId) -> Option<ConnId> {
        self.sides[1 - at].as_ref()?;
        let link = self.links.iter().find(|link| link.ends[at] == Some(conn))?;
        link.ends[1 - at]
    }

    fn dial(&mut self, at: usize) {
        let listens = self.sides[1 - at]
            .as_ref()
            .is_some_and(|peer| peer.exited.is_none());
        if !listens {
            return self.apply(at, Event::DialFailed);
        }
        let mut ends = [None; 2];
        for (side, dialed) in [(at, true), (1 - at, false)] {
            let conn = ConnId(self.next_conn);
            self.next_conn += 1;
            ends[side] = Some(conn);
            let nonce = u128::from(conn.0) << 64 | 1;
            self.side(side).inbox.push_back(Incoming::Up {
                conn,
                dialed,
                nonce,
            });
        }
        self.links.push(Link { ends });
    }
}
