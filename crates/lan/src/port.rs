//! One node's connection to the switch.

use std::io;

use mio::net::UnixStream;

use crate::framing::{FrameQueue, FrameReader, FramingError, ReadOutcome};

/// Reads from one port in a row before the others have their turn.
const READS_PER_TURN: usize = 2;

/// A connected node.
pub(crate) struct Port {
    stream: UnixStream,
    reader: FrameReader,
    queue: FrameQueue,
    readable: bool,
    writable: bool,
}

/// Why a port ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PortEnd {
    /// The peer closed it, or its process ended.
    #[error("closed by its peer")]
    Left,
    /// The peer broke the protocol.
    #[error("closed: {0}")]
    Broken(#[from] FramingError),
    /// The system said so.
    #[error("closed: {0}")]
    Io(#[from] io::Error),
}

impl Port {
    pub(crate) fn new(stream: UnixStream) -> Port {
        Port {
            stream,
            reader: FrameReader::new(),
            queue: FrameQueue::default(),
            // Unknown until tried.
            readable: true,
            writable: true,
        }
    }

    /// The socket, to put it into the poll and take it out.
    pub(crate) fn stream(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// Notes what the host says about the socket.
    pub(crate) fn host_event(&mut self, event: &mio::event::Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable();
    }

    /// True if there may be bytes to read.
    pub(crate) fn is_readable(&self) -> bool {
        self.readable
    }

    /// Reads what has come, up to this turn's share, and gives each frame to
    /// `frame`. Frames before a fault are still given.
    pub(crate) fn read(&mut self, mut frame: impl FnMut(&[u8])) -> Result<(), PortEnd> {
        for _ in 0..READS_PER_TURN {
            match self.reader.fill(&mut self.stream) {
                Ok(ReadOutcome::Bytes) => {}
                Ok(ReadOutcome::Drained) => {
                    self.readable = false;
                    return Ok(());
                }
                Ok(ReadOutcome::Closed) => return Err(PortEnd::Left),
                // It left without reading everything that was sent to it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(PortEnd::Left);
                }
                Err(error) => return Err(error.into()),
            }
            while let Some(bytes) = self.reader.next_frame()? {
                frame(bytes);
            }
        }
        Ok(())
    }

    /// Queues a frame for the node; false if the queue is full and it is dropped.
    pub(crate) fn send(&mut self, frame: &[u8]) -> bool {
        self.queue.push(frame)
    }

    /// Bytes that wait for the node to read.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queue.len_bytes()
    }

    /// Writes what the socket takes.
    pub(crate) fn flush(&mut self) -> Result<(), PortEnd> {
        if self.writable && !self.queue.is_empty() {
            match self.queue.write_to(&mut self.stream) {
                Ok(emptied) => self.writable = emptied,
                // Its last frames may still be unread; reading finds the end.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    self.writable = false;
                    self.readable = true;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
