//! The port protocol: QEMU's stream netdev framing, a u32 big-endian length and
//! then that many bytes of Ethernet frame, in both directions of a byte stream.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};

/// Longest frame a port may send. QEMU's own limit (`NET_BUFSIZE`): 64 KiB of
/// payload, as segmentation offload makes it, and room for headers.
pub const MAX_FRAME_BYTES: usize = 4096 + 65536;

/// Shortest frame a port may send: an Ethernet header.
pub const MIN_FRAME_BYTES: usize = crate::ethernet::HEADER_BYTES;

/// Bytes of the length before each frame.
const LENGTH_BYTES: usize = 4;

/// Read buffer of a port. At least one whole frame; more means fewer system calls.
const READ_BUFFER_BYTES: usize = 128 * 1024;
const _: () = assert!(READ_BUFFER_BYTES >= MAX_FRAME_BYTES + LENGTH_BYTES);

/// Output queue of a port. Enough for some dozen TCP windows, small enough that a
/// port which never reads costs little. Frames beyond it are dropped.
pub(crate) const QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// An emptied queue that grew beyond this gives its memory back.
const QUEUE_KEEP_BYTES: usize = 256 * 1024;

/// The peer broke the framing. The stream can't be followed any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FramingError {
    /// A length above [`MAX_FRAME_BYTES`].
    #[error("it announced a frame of {0} bytes, more than {MAX_FRAME_BYTES}")]
    TooLong(u32),
    /// A length below [`MIN_FRAME_BYTES`].
    #[error("it announced a frame of {0} bytes, less than an Ethernet header's {MIN_FRAME_BYTES}")]
    TooShort(u32),
}

/// What one read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadOutcome {
    /// Bytes came; there may be more.
    Bytes,
    /// The peer has sent nothing more yet.
    Drained,
    /// The peer closed its side.
    Closed,
}

/// Cuts frames out of a byte stream, with one buffer of fixed size.
pub(crate) struct FrameReader {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl FrameReader {
    pub(crate) fn new() -> FrameReader {
        FrameReader {
            buffer: vec![0; READ_BUFFER_BYTES],
            start: 0,
            end: 0,
        }
    }

    /// Reads once. Take all frames with [`FrameReader::next_frame`] before the
    /// next call: what remains then is less than one frame, so there is room.
    pub(crate) fn fill(&mut self, stream: &mut impl Read) -> io::Result<ReadOutcome> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let room = &mut self.buffer[self.end..];
        assert!(!room.is_empty(), "frames are taken before the next read");
        match stream.read(room) {
            Ok(0) => Ok(ReadOutcome::Closed),
            Ok(count) => {
                self.end += count;
                Ok(ReadOutcome::Bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(ReadOutcome::Drained),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(ReadOutcome::Bytes),
            Err(error) => Err(error),
        }
    }

    /// The next whole frame, if it has arrived. Next hop: [`crate::switch`].
    pub(crate) fn next_frame(&mut self) -> Result<Option<&[u8]>, FramingError> {
        let bytes = &self.buffer[self.start..self.end];
        let Some((prefix, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let announced = u32::from_be_bytes(*prefix);
        let length = announced as usize;
        if length > MAX_FRAME_BYTES {
            return Err(FramingError::TooLong(announced));
        }
        if length < MIN_FRAME_BYTES {
            return Err(FramingError::TooShort(announced));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let at = self.start + LENGTH_BYTES;
        self.start = at + length;
        Ok(Some(&self.buffer[at..at + length]))
    }
}

/// Frames waiting for a port's stream, bounded in bytes.
#[derive(Default)]
pub(crate) struct FrameQueue {
    bytes: VecDeque<u8>,
}

impl FrameQueue {
    /// Appends a frame; false if there was no room and the frame is dropped.
    pub(crate) fn push(&mut self, frame: &[u8]) -> bool {
        let needed = LENGTH_BYTES + frame.len();
        if self.bytes.len() + needed > QUEUE_BYTES || frame.len() > MAX_FRAME_BYTES {
            return false;
        }
        self.bytes.extend((frame.len() as u32).to_be_bytes());
        self.bytes.extend(frame);
        true
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Writes until empty or the stream takes no more (`Ok(false)`).
    pub(crate) fn write_to(&mut self, stream: &mut impl Write) -> io::Result<bool> {
        while !self.bytes.is_empty() {
            let (front, back) = self.bytes.as_slices();
            match stream.write_vectored(&[IoSlice::new(front), IoSlice::new(back)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => drop(self.bytes.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.bytes.shrink_to(QUEUE_KEEP_BYTES);
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
