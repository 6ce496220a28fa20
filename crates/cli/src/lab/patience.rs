//! Reading from a server that may be away for a while.

use std::io::{self, ErrorKind, Read};

/// Reads what has come into `buffer`, at least a byte. When the stream's time is over, `patient`
/// says whether to wait on.
///
/// # Errors
/// The connection's, also its end; or nobody is patient any more.
pub(super) fn fill(
    stream: &mut impl Read,
    buffer: &mut Vec<u8>,
    patient: &mut impl FnMut() -> bool,
) -> io::Result<()> {
    let mut piece = [0; 16 << 10];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => {
                let why = "the connection was closed";
                return Err(io::Error::new(ErrorKind::UnexpectedEof, why));
            }
            Ok(length) => {
                buffer.extend_from_slice(&piece[..length]);
                return Ok(());
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) && patient() => {}
            Err(error) => return Err(error),
        }
    }
}
