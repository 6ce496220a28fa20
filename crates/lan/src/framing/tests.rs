use super::*;

fn framed(frame: &[u8]) -> Vec<u8> {
    let mut bytes = (frame.len() as u32).to_be_bytes().to_vec();
    bytes.extend(frame);
    bytes
}

/// A stream that gives at most `step` bytes a read and takes at most `step` a write.
struct Dribble {
    bytes: Vec<u8>,
    at: usize,
    step: usize,
    taken: Vec<u8>,
    room: usize,
}

impl Dribble {
    fn new(bytes: Vec<u8>, step: usize) -> Dribble {
        Dribble {
            bytes,
            at: 0,
            step,
            taken: Vec::new(),
            room: usize::MAX,
        }
    }
}

impl Read for Dribble {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.step.min(buffer.len()).min(self.bytes.len() - self.at);
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        buffer[..count].copy_from_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

impl Write for Dribble {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.step.min(bytes.len()).min(self.room);
        if count == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room -= count;
        self.taken.extend(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn read_all(stream: &mut Dribble) -> Result<Vec<Vec<u8>>, FramingError> {
    let mut reader = FrameReader::new();
    let mut frames = Vec::new();
    while reader.fill(stream).unwrap() == ReadOutcome::Bytes {
        while let Some(frame) = reader.next_frame()? {
            frames.push(frame.to_vec());
        }
    }
    Ok(frames)
}

#[test]
fn frames_survive_any_cutting() {
    let frames: Vec<Vec<u8>> = [14, 60, 1514, MAX_FRAME_BYTES, 15]
        .iter()
        .enumerate()
        .map(|(index, &length)| vec![index as u8; length])
        .collect();
    let bytes: Vec<u8> = frames.iter().flat_map(|frame| framed(frame)).collect();
    for step in [1, 3, 1000, usize::MAX] {
        let mut stream = Dribble::new(bytes.clone(), step);
        assert_eq!(read_all(&mut stream).unwrap(), frames, "step {step}");
    }
}

#[test]
fn lengths_out_of_range_are_errors() {
    for length in [0, 1, 13] {
        let mut stream = Dribble::new(framed(&vec![0; length]), usize::MAX);
        assert_eq!(
            read_all(&mut stream),
            Err(FramingError::TooShort(length as u32))
        );
    }
    for length in [MAX_FRAME_BYTES as u32 + 1, u32::MAX] {
        let mut stream = Dribble::new(length.to_be_bytes().to_vec(), usize::MAX);
        assert_eq!(read_all(&mut stream), Err(FramingError::TooLong(length)));
    }
}

#[test]
fn a_full_queue_drops_whole_frames_and_never_grows() {
    let mut queue = FrameQueue::default();
    let frame = vec![7; 1514];
    let mut taken = 0;
    for _ in 0..2 * QUEUE_BYTES / frame.len() {
        taken += usize::from(queue.push(&frame));
        assert!(queue.len_bytes() <= QUEUE_BYTES);
    }
    assert_eq!(taken, QUEUE_BYTES / (frame.len() + 4));

    // A stuck write in the middle of a frame leaves the stream intact.
    let mut stream = Dribble::new(Vec::new(), 1000);
    stream.room = 10_001;
    assert!(!queue.write_to(&mut stream).unwrap());
    assert!(queue.push(&frame));
    stream.room = usize::MAX;
    assert!(queue.write_to(&mut stream).unwrap());
    assert!(queue.is_empty() && queue.bytes.capacity() <= QUEUE_KEEP_BYTES);
    let mut back = Dribble::new(stream.taken, usize::MAX);
    let frames = read_all(&mut back).unwrap();
    assert_eq!(frames.len(), taken + 1);
    assert!(frames.iter().all(|got| *got == frame));
}
