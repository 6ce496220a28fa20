//! What marks say of one answer.

use std::collections::BTreeMap;

use twinvm_host::marks::Place;

use crate::bench::redis::Span;
use crate::demo::error::DemoError;

/// The hops, each from one mark to the next; the first begins and the last ends at the client.
pub(super) const HOPS: [&str; 8] = [
    "the request, to the live node's loop",
    "the guest answers, its record is made",
    "the batch, to the backup's receiving thread",
    "stored",
    "the ack, to the live node's receiving thread",
    "to its loop",
    "the gate lets the packet go",
    "the packet, to the client",
];

/// One line of a node's marks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark<'a> {
    place: &'a str,
    position: u64,
    at_ns: u64,
}

/// The marks of a file. Its last line may be torn: the node was killed.
pub(super) fn read(text: &str) -> Result<Vec<Mark<'_>>, DemoError> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let bad = |line: &str| DemoError::failed(format!("marks: {line:?} is no mark"));
    let mark = |line| {
        let mut words = str::split(line, ' ');
        let place = words.next()?;
        let position = words.next()?.parse().ok()?;
        let at_ns = words.next()?.parse().ok()?;
        words.next().is_none().then_some(Mark {
            place,
            position,
            at_ns,
        })
    };
    let lines = whole.lines();
    lines
        .map(|line| mark(line).ok_or_else(|| bad(line)))
        .collect()
}

/// All marks of a pair's two nodes.
pub(super) struct Way {
    packets: Vec<u64>,
    outs: Vec<u64>,
    /// When, and which.
    acks_taken: Vec<(u64, u64)>,
    sending: Passed,
    sent: Passed,
    came: Passed,
    stored: Passed,
    ack_came: Passed,
}

/// When each position passed a place for the first time: an ack may be said again.
type Passed = BTreeMap<u64, u64>;

/// What one answer spent; nothing where there was no such hop.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) hops_ns: [Option<u64>; HOPS.len()],
    /// Of the third hop, until the write of the batch has returned.
    pub(super) written_ns: Option<u64>,
    /// From the third hop's begin to the seventh one's end.
    pub(super) waits_ns: Option<u64>,
}

impl Way {
    pub(super) fn new(live: &[Mark], backup: &[Mark]) -> Self {
        let times = |place: Place| {
            let marks = live.iter().filter(|mark| mark.place == place.name());
            let mut times: Vec<u64> = marks.map(|mark| mark.at_ns).collect();
            times.sort_unstable();
            times
        };
        let taken = live.iter().filter(|m| m.place == Place::AckTaken.name());
        Self {
            packets: times(Place::Packet),
            outs: times(Place::Out),
            acks_taken: taken.map(|mark| (mark.at_ns, mark.position)).collect(),
            sending: passed(live, Place::Sending),
            sent: passed(live, Place::Sent),
            came: passed(backup, Place::Came),
            stored: passed(backup, Place::Stored),
            ack_came: passed(live, Place::AckCame),
        }
    }

    /// What the answer to this request spent, if all of its marks are there: the last packet that
    /// left before the client had its answer, the ack that was taken last before that, and the
    /// batch with that position.
    pub(super) fn of(&self, span: &Span) -> Option<Answer> {
        let (packet, out) = self.in_and_out(span)?;
        let acks = self.acks_taken.partition_point(|(at, _)| *at <= out);
        let (taken, position) = self.acks_taken[..acks].last()?;
        let at = |place: &Passed| place.get(position).copied();
        let sending = at(&self.sending)?;
        let way = [
            span.from_ns,
            packet,
            sending,
            at(&self.came)?,
            at(&self.stored)?,
            at(&self.ack_came)?,
            *taken,
            out,
            span.to_ns,
        ];
        let mut hops_ns = [None; HOPS.len()];
        for (hop, pair) in hops_ns.iter_mut().zip(way.windows(2)) {
            *hop = Some(pair[1].checked_sub(pair[0])?);
        }
        Some(Answer {
            hops_ns,
            written_ns: Some(at(&self.sent)?.checked_sub(sending)?),
            waits_ns: Some(out.checked_sub(sending)?),
        })
    }

    /// The same of a VM without a backup: the first two hops, the second to the guest's packet, and
    /// the last one.
    pub(super) fn of_alone(&self, span: &Span) -> Option<Answer> {
        let (packet, out) = self.in_and_out(span)?;
        let mut answer = Answer::default();
        answer.hops_ns[0] = Some(packet.checked_sub(span.from_ns)?);
        answer.hops_ns[1] = Some(out.checked_sub(packet)?);
        answer.hops_ns[HOPS.len() - 1] = Some(span.to_ns.checked_sub(out)?);
        Some(answer)
    }

    /// The first packet for the guest since the request was sent, and the last of the guest's before
    /// its answer came.
    fn in_and_out(&self, span: &Span) -> Option<(u64, u64)> {
        let packets = self.packets.partition_point(|at| *at < span.from_ns);
        let outs = self.outs.partition_point(|at| *at <= span.to_ns);
        let out = self.outs[..outs].last()?;
        Some((*self.packets.get(packets)?, *out))
    }
}

fn passed(marks: &[Mark], place: Place) -> Passed {
    let mut passed = Passed::new();
    for mark in marks.iter().filter(|mark| mark.place == place.name()) {
        let first = passed.entry(mark.position).or_insert(mark.at_ns);
        *first = mark.at_ns.min(*first);
    }
    passed
}

#[cfg(test)]
mod tests;
