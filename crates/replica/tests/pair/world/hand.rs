//! What a test moves by hand.

use super::*;

impl World {
    /// Hands the oldest thing in its inbox to a node; what it was.
    pub(crate) fn deliver(&mut self, at: usize) -> Option<String> {
        let incoming = self.sides[at].as_mut()?.inbox.pop_front()?;
        let what = format!("{incoming:?}");
        match incoming {
            Incoming::Up {
                conn,
                dialed,
                nonce,
            } => self.apply(
                at,
                Event::ChannelUp {
                    conn,
                    dialed,
                    nonce,
                },
            ),
            Incoming::Message { conn, message } => {
                if let Message::Log { batch, .. } = &message {
                    let records = records(batch);
                    self.side(at).received.extend(records);
                }
                self.apply(at, Event::Received { conn, message });
            }
            Incoming::Down { conn } => self.apply(at, Event::ChannelDown { conn }),
        }
        Some(what)
    }

    /// What the receiving thread of a host does with the oldest thing in a backup's inbox, a batch of
    /// the log: it is stored and acked, and the replica has not heard of it yet.
    pub(crate) fn store_beside(&mut self, at: usize) -> Stored {
        let storing = self.side(at).replica.storing().expect("it follows");
        let Some(Incoming::Message { conn, message }) = self.side(at).inbox.pop_front() else {
            panic!("no batch of the log");
        };
        let Message::Log {
            first,
            end,
            released,
            batch,
        } = message
        else {
            panic!("no batch of the log, but {message:?}");
        };
        assert_eq!((conn, first), (storing.conn, storing.end));
        let message = Message::Ack {
            received: end,
            emitted: storing.emitted,
            progress: storing.progress,
        };
        if let Some(conn) = self.far_end(at, conn) {
            let inbox = &mut self.side(1 - at).inbox;
            inbox.push_back(Incoming::Message { conn, message });
        }
        Stored::decode(first, end, released, &batch).expect("a batch of ours")
    }

    /// The replica has not heard of it when its session ends.
    pub(crate) fn keep(&mut self, stored: Stored) {
        self.env.kept.push(stored);
    }

    /// Lets the arbiter carry out and answer a node's oldest question.
    pub(crate) fn ask(&mut self, at: usize) {
        let Some((req, cas)) = self.side(at).questions.pop_front() else {
            return;
        };
        let outcome: Outcome = match cas {
            None => self.arbiter.read(),
            Some((expect, record)) => self.arbiter.cas(expect, record),
        };
        self.apply(at, Event::Arbiter { req, outcome });
    }

    /// One slice of the guest, if it may run.
    pub(crate) fn slice(&mut self, at: usize) {
        self.apply(at, Event::Slice);
        self.env.now_ns += SLICE_NS;
    }

    /// A frame from the wire.
    pub(crate) fn frame(&mut self, at: usize, frame: Vec<u8>) {
        assert!(self.side(at).replica.net_room(0), "the guest has room");
        let bytes = [vec![0; NET_HEADER_BYTES], frame].concat();
        self.apply(at, Event::Frame { device: 0, bytes });
    }

    /// A person asks for a digest: the backup compares its own.
    pub(crate) fn digest(&mut self, at: usize) {
        let side = self.sides[at].as_mut().expect("the node runs");
        let position = side.replica.log_digest(&mut self.env);
        assert!(position.is_some(), "a live node has something to compare");
    }

    /// Whether the other node has sent this one a side message.
    pub(crate) fn asked(&self, at: usize) -> bool {
        self.sides[at].as_ref().is_some_and(|side| side.asked > 0)
    }

    pub(crate) fn divergence(&self, at: usize) -> Option<String> {
        self.sides[at].as_ref()?.replica.status().divergence
    }

    pub(crate) fn digests_equal(&self, at: usize) -> u64 {
        let side = self.sides[at].as_ref();
        side.map_or(0, |side| side.replica.status().digests_equal)
    }

    /// Time passes, and nobody is told.
    pub(crate) fn pass_ms(&mut self, ms: u64) {
        self.env.now_ns += ms * 1_000_000;
    }

    /// Delivers and executes what there is, until all is quiet.
    pub(crate) fn settle(&mut self) {
        loop {
            let runs = [A, B].map(|at| {
                let runs = self.side(at).replica.wait() == Wait::Run;
                if runs {
                    self.slice(at);
                }
                let delivered = self.deliver(at).is_some();
                runs || delivered
            });
            if runs == [false, false] {
                return;
            }
        }
    }
}
