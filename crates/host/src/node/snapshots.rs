//! Snapshots of this node's machine, read by threads of their own: for a joining node,
//! and for people.

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use twinvm_replica::{Piece, SnapshotPieces, SnapshotSource};

/// Pieces of 128 KiB that wait to be sent: what the loop hands on between two looks.
const PIECES: usize = 8;

/// A snapshot for a joining node, read by a thread.
struct ThreadPieces(Receiver<(Vec<u8>, bool)>);

impl SnapshotPieces for ThreadPieces {
    fn next_piece(&mut self) -> Piece {
        match self.0.try_recv() {
            Ok((bytes, last)) => Piece::Ready { bytes, last },
            Err(TryRecvError::Empty) => Piece::Later,
            Err(TryRecvError::Disconnected) => {
                Piece::Failed("this host starts no thread that reads the snapshot".to_owned())
            }
        }
    }
}

/// Starts reading. The thread ends with the last piece, or when nobody wants them.
pub(super) fn read_pieces(mut source: SnapshotSource) -> Box<dyn SnapshotPieces> {
    let (pieces, ready) = bounded(PIECES);
    // Without a thread `pieces` is dropped, which says that it failed.
    let _ = std::thread::Builder::new()
        .name("snapshot".to_owned())
        .spawn(move || {
            loop {
                let (bytes, last) = source.read_piece();
                if pieces.send((bytes, last)).is_err() || last {
                    return;
                }
            }
        });
    Box::new(ThreadPieces(ready))
}
