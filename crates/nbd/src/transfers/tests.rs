use proptest::prelude::*;

use super::*;

const ALL: u16 = ExportFlags::HAS_FLAGS
    | ExportFlags::SEND_FLUSH
    | ExportFlags::SEND_FUA
    | ExportFlags::SEND_TRIM
    | ExportFlags::SEND_WRITE_ZEROES;

fn export(flags: u16, payload_bytes: u32) -> Export {
    Export {
        bytes: 1 << 30,
        flags: ExportFlags(flags),
        block_bytes: 1,
        payload_bytes,
    }
}

/// The next request, or how a job has ended.
fn next(transfers: &mut Transfers<u32>, export: &Export) -> Option<Next<u32>> {
    transfers.next_frame(export)
}

fn sent(transfers: &mut Transfers<u32>, export: &Export) -> (Request, Payload) {
    match next(transfers, export) {
        Some(Next::Send(frame)) => (Request::decode(&frame.head).unwrap(), frame.payload),
        other => panic!("{other:?}"),
    }
}

fn good(request: &Request) -> Reply {
    Reply {
        error: 0,
        cookie: request.cookie,
    }
}

#[test]
fn a_read_in_pieces_is_put_together_in_any_order() {
    let export = export(ALL, 1024);
    let mut transfers = Transfers::default();
    let (offset, bytes) = (4096, 2560);
    transfers.submit(7, Job::Read { offset, bytes });
    let pieces: Vec<Request> = (0..3).map(|_| sent(&mut transfers, &export).0).collect();
    assert_eq!(next(&mut transfers, &export), None);
    let ranges: Vec<_> = pieces.iter().map(|p| (p.offset, p.bytes)).collect();
    assert_eq!(ranges, [(4096, 1024), (5120, 1024), (6144, 512)]);
    for (n, wait) in [(2, true), (0, true), (1, false)] {
        let reply = good(&pieces[n]);
        let data = vec![n as u8; transfers.data_bytes(&reply).unwrap()];
        let ended = transfers.answered(&reply, &data, &export).unwrap();
        assert_eq!(ended.is_none(), wait);
        if let Some(ended) = ended {
            let whole = [vec![0; 1024], vec![1; 1024], vec![2; 512]].concat();
            assert_eq!((ended.tag, ended.result), (7, Ok(whole)));
        }
        // Said twice.
        assert_eq!(transfers.answered(&reply, &data, &export), Err(Unasked));
    }
    assert!(transfers.is_empty() && !transfers.waits());
}

#[test]
fn a_durable_write_is_flushed_where_the_server_can_do_no_better() {
    let write = |durable| Job::Write {
        offset: 0,
        data: vec![5; 1024].into(),
        durable,
    };
    let mut transfers = Transfers::default();
    transfers.submit(1, write(true));
    let (request, payload) = sent(&mut transfers, &export(ALL, 4096));
    assert_eq!(
        (request.command, request.flags),
        (Command::Write, Request::FUA)
    );
    assert_eq!(payload, Payload::Data(vec![5; 1024].into(), 0..1024));
    assert_eq!(next(&mut transfers, &export(ALL, 4096)), None);

    let plain = export(ExportFlags::HAS_FLAGS | ExportFlags::SEND_FLUSH, 512);
    let mut transfers = Transfers::default();
    transfers.submit(1, write(true));
    let (first, second) = (
        sent(&mut transfers, &plain).0,
        sent(&mut transfers, &plain).0,
    );
    assert_eq!((first.flags, second.command), (0, Command::Write));
    // Not before the writes have been answered.
    assert_eq!(next(&mut transfers, &plain), None);
    assert_eq!(transfers.answered(&good(&second), &[], &plain), Ok(None));
    assert_eq!(next(&mut transfers, &plain), None);
    assert_eq!(transfers.answered(&good(&first), &[], &plain), Ok(None));
    let (flush, _) = sent(&mut transfers, &plain);
    assert_eq!(flush.command, Command::Flush);
    let ended = transfers.answered(&good(&flush), &[], &plain).unwrap();
    assert_eq!(ended.unwrap().result, Ok(vec![]));

    // A server without a cache of its own.
    let mut transfers = Transfers::default();
    let none = export(ExportFlags::HAS_FLAGS, 4096);
    transfers.submit(1, write(true));
    transfers.submit(2, Job::Flush);
    let (write, _) = sent(&mut transfers, &none);
    let Some(Next::Ended(flushed)) = next(&mut transfers, &none) else {
        panic!("a flush is nothing to ask for there")
    };
    assert_eq!((flushed.tag, flushed.result), (2, Ok(vec![])));
    assert!(
        transfers
            .answered(&good(&write), &[], &none)
            .unwrap()
            .is_some()
    );
}

#[test]
fn ranges_are_cleared_by_command_or_by_zeros() {
    let zero = |unmap| Job::Zero {
        offset: 512,
        bytes: 100 << 10,
        unmap,
    };
    for (unmap, flags) in [(true, 0), (false, Request::NO_HOLE)] {
        let mut transfers = Transfers::default();
        transfers.submit(1, zero(unmap));
        let (request, payload) = sent(&mut transfers, &export(ALL, 4096));
        assert_eq!(request.command, Command::WriteZeroes);
        assert_eq!((request.flags, payload), (flags, Payload::None));
        assert_eq!((request.offset, request.bytes), (512, 100 << 10));
    }
    let mut transfers = Transfers::default();
    transfers.submit(1, zero(true));
    let plain = export(ExportFlags::HAS_FLAGS | ExportFlags::SEND_TRIM, 1 << 20);
    let (first, payload) = sent(&mut transfers, &plain);
    assert_eq!(
        (first.command, payload),
        (Command::Write, Payload::Zeros(64 << 10))
    );
    let (second, payload) = sent(&mut transfers, &plain);
    assert_eq!(payload, Payload::Zeros(36 << 10));
    assert_eq!(second.offset, 512 + (64 << 10));
}

#[test]
fn an_error_ends_a_job_once_all_its_answers_are_in() {
    let export = export(ALL, 512);
    let mut transfers = Transfers::default();
    let (offset, bytes) = (0, 1024);
    transfers.submit(1, Job::Read { offset, bytes });
    let (first, second) = (
        sent(&mut transfers, &export).0,
        sent(&mut transfers, &export).0,
    );
    let mut reply = good(&first);
    reply.error = Reply::EIO;
    assert_eq!(transfers.data_bytes(&reply), Ok(0));
    assert_eq!(transfers.answered(&reply, &[], &export), Ok(None));
    let ended = transfers
        .answered(&good(&second), &[1; 512], &export)
        .unwrap();
    assert_eq!(ended.unwrap().result, Err(Reply::EIO));
}

#[test]
fn what_a_lost_connection_owes_is_asked_again() {
    let wide = export(ALL, 4096);
    let mut transfers = Transfers::default();
    for tag in 0..3 {
        let (offset, bytes) = (u64::from(tag) * 4096, 4096);
        transfers.submit(tag, Job::Read { offset, bytes });
    }
    let first: Vec<Request> = (0..3).map(|_| sent(&mut transfers, &wide).0).collect();
    let done = transfers.answered(&good(&first[1]), &[9; 4096], &wide);
    assert_eq!(done.unwrap().unwrap().tag, 1);
    transfers.lost();
    assert!(!transfers.waits() && transfers.len() == 2);
    // An answer to what the lost one carried means nothing any more.
    assert_eq!(transfers.data_bytes(&good(&first[0])), Err(Unasked));
    // The next server takes less at once.
    let narrow = export(ALL, 2048);
    let again: Vec<u64> = (0..4)
        .map(|_| sent(&mut transfers, &narrow).0.offset)
        .collect();
    assert_eq!(again, [0, 2048, 8192, 8192 + 2048]);
    assert_eq!(next(&mut transfers, &narrow), None);
}

proptest! {
    /// Against a server in memory that answers in any order, with connections lost at any time,
    /// each job ends once, and reads read what was written.
    #[test]
    fn any_order_and_any_loss(
        flags in 0u16..128,
        payload in 1u32..9,
        choices in proptest::collection::vec(any::<u8>(), 1..400),
    ) {
        let export = export(flags | ExportFlags::HAS_FLAGS, payload * 512);
        let mut transfers = Transfers::default();
        let mut disk = vec![0xee; 16 * 4096];
        let mut wanted = disk.clone();
        for n in 0..16u32 {
            let offset = u64::from(n) * 4096;
            let at = offset as usize;
            transfers.submit(n, match n % 4 {
                0 => Job::Read { offset, bytes: 4096 },
                1 => {
                    wanted[at..at + 4096].fill(n as u8);
                    Job::Write { offset, data: vec![n as u8; 4096].into(), durable: n % 8 == 1 }
                }
                2 => {
                    wanted[at..at + 4096].fill(0);
                    Job::Zero { offset, bytes: 4096, unmap: n % 8 == 2 }
                }
                _ => Job::Flush,
            });
        }
        let mut under_way: Vec<(Request, Payload)> = Vec::new();
        let mut ended = Vec::new();
        let mut choices = choices.into_iter();
        let mut losses = 0;
        while !transfers.is_empty() {
            let choice = choices.next().unwrap_or(1);
            if choice % 16 == 0 && losses < 8 {
                losses += 1;
                under_way.clear();
                transfers.lost();
                continue;
            }
            match (choice % 2 == 0).then(|| transfers.next_frame(&export)).flatten() {
                Some(Next::Send(frame)) => {
                    under_way.push((Request::decode(&frame.head).unwrap(), frame.payload));
                    continue;
                }
                Some(Next::Ended(done)) => { ended.push(done.tag); continue; }
                None => {}
            }
            if under_way.is_empty() {
                match transfers.next_frame(&export) {
                    Some(Next::Send(frame)) => {
                        under_way.push((Request::decode(&frame.head).unwrap(), frame.payload));
                    }
                    Some(Next::Ended(done)) => ended.push(done.tag),
                    None => prop_assert!(false, "stuck"),
                }
                continue;
            }
            let (request, payload) = under_way.swap_remove(usize::from(choice) % under_way.len());
            let range = request.offset as usize..request.offset as usize + request.bytes as usize;
            let mut read = Vec::new();
            match (request.command, payload) {
                (Command::Read, _) => read = disk[range].to_vec(),
                (Command::Write, Payload::Data(data, part)) => disk[range].copy_from_slice(&data[part]),
                (Command::Write, Payload::Zeros(_)) | (Command::WriteZeroes, _) => disk[range].fill(0),
                _ => {}
            }
            let reply = good(&request);
            if let Some(done) = transfers.answered(&reply, &read, &export).unwrap() {
                let result = done.result.unwrap();
                prop_assert!(result.iter().all(|byte| *byte == 0xee));
                prop_assert_eq!(result.len(), if done.tag % 4 == 0 { 4096 } else { 0 });
                ended.push(done.tag);
            }
        }
        ended.sort_unstable();
        prop_assert_eq!(ended, (0..16).collect::<Vec<u32>>());
        prop_assert!(disk == wanted);
    }
}
