//! The arbiter in an etcd cluster, over the JSON gateway of its API version 3 (etcd 3.4 or
//! later).
//!
//! The register is the key `twinvm/arbiter/NAME`, its value the stored form of the record. A
//! change is one transaction: if the value still is what was read (or the key does not exist),
//! the new one is put and read back; otherwise what stands there is read. A value holds its
//! generation, so none ever comes twice, and a copy of a request that arrives late finds
//! another value and changes nothing. Reads are linearizable, which is etcd's default: a member
//! without a majority does not answer them.
//!
//! On the way to another host it is TLS 1.3, both sides authenticated; who may ask is etcd's to say,
//! by the certificate (`--client-cert-auth`).
//!
//! A member that does not answer is left for the next one. All must belong to one cluster: an
//! answer with another `cluster_id` is not believed.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use twinvm_protocol::arbiter::wire::VmName;
use twinvm_protocol::codec::{decode_record, encode_record};
use twinvm_protocol::{ArbiterContract, Generation, Outcome, Record};

use super::CALL_LIMIT;
use super::guard::{Guard, one_line};
use super::http;
use super::stream::{Stream, connect};
use crate::arbiter_worker::ArbiterBackend;
use crate::tls::{ServerName, WebClient};

/// What the keys of registers begin with.
const KEY_PREFIX: &str = "twinvm/arbiter/";
/// How long one member may take before the next is asked: an election of a new leader takes
/// about a second, so the same one may well answer later.
const MEMBER_LIMIT: Duration = Duration::from_millis(700);
/// Pause before all members are asked again.
const PAUSE: Duration = Duration::from_millis(50);

/// A member of the cluster.
#[derive(Clone, Debug)]
pub struct Member {
    /// Where it listens for clients.
    pub at: SocketAddr,
    /// Whom its certificate must be for, if it has one.
    pub name: Option<ServerName<'static>>,
}

/// The arbiter in an etcd cluster. Calls block for at most 2.4 s.
#[derive(Debug)]
pub struct EtcdArbiter {
    members: Vec<Member>,
    /// For those that have names.
    keys: Option<WebClient>,
    /// The one that answered last.
    member: usize,
    /// The key in base64, as the gateway has all bytes.
    key: String,
    /// The cluster that answered first.
    cluster: Option<String>,
    guard: Guard,
    trouble: Option<String>,
}

impl EtcdArbiter {
    /// The register of `vm` in the cluster with these members, which with `keys` are spoken to in
    /// TLS only. Nothing is asked yet.
    pub fn new(members: Vec<Member>, vm: &VmName, keys: Option<WebClient>) -> EtcdArbiter {
        EtcdArbiter {
            members,
            keys,
            member: 0,
            key: base64::encode(format!("{KEY_PREFIX}{vm}").as_bytes()),
            cluster: None,
            guard: Guard::default(),
            trouble: None,
        }
    }

    /// Asks one member after the other until one answers.
    fn ask(&mut self, path: &str, question: &Value, until: Instant) -> Result<Value, String> {
        let question = question.to_string();
        let mut failed = match self.members.is_empty() {
            true => "no member is named".to_owned(),
            false => "no time was left to ask a member".to_owned(),
        };
        let mut has_reason = false;
        loop {
            for _ in 0..self.members.len() {
                let member = self.members[self.member].clone();
                let at = member.at;
                let now = Instant::now();
                if now >= until {
                    return Err(failed);
                }
                // Of one that had less than its time because the call's was over, silence says nothing.
                let cut_short = until < now + MEMBER_LIMIT;
                let until = until.min(now + MEMBER_LIMIT);
                let answer = self
                    .dial(member, until)
                    .and_then(|mut stream| http::post(&mut *stream, at, path, &question, until));
                match answer {
                    Ok(answer) if answer.status == 200 => match self.judge(&answer.body) {
                        Ok(answer) => return Ok(answer),
                        Err(why) => failed = format!("{at} {why}"),
                    },
                    Ok(answer) => {
                        let text = String::from_utf8_lossy(&answer.body).into_owned();
                        failed = format!("{at} answers {}: {text}", answer.status);
                    }
                    Err(error) if is_silence(&error) => {
                        if !(cut_short && has_reason) {
                            failed = format!("{at}: it does not answer in time");
                        }
                    }
                    Err(error) => failed = format!("{at}: {error}"),
                }
                has_reason = true;
                self.member = (self.member + 1) % self.members.len();
            }
            if self.members.is_empty() || Instant::now() + PAUSE >= until {
                return Err(failed);
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn dial(&mut self, member: Member, until: Instant) -> io::Result<Box<dyn Stream>> {
        let tcp = connect(member.at, until)?;
        let (keys, name) = match (&mut self.keys, member.name) {
            (None, None) => return Ok(Box::new(tcp)),
            (Some(keys), Some(name)) => (keys, name),
            // Never in the clear what was to be in TLS.
            _ => return Err(io::Error::other("there are no keys for it")),
        };
        let stream = keys.connect(tcp, name, until);
        if let Some(trouble) = keys.take_trouble() {
            self.trouble = Some(format!("arbiter etcd: {}", one_line(&trouble)));
        }
        Ok(Box::new(stream?))
    }

    /// The answer, if it is etcd that gave it, and the same cluster as before.
    fn judge(&mut self, body: &[u8]) -> Result<Value, String> {
        let answer: Value =
            serde_json::from_slice(body).map_err(|error| format!("answers no JSON: {error}"))?;
        let Some(cluster) = answer["header"]["cluster_id"].as_str() else {
            return Err(format!("answers as etcd does not: {answer}"));
        };
        let known = self.cluster.get_or_insert_with(|| cluster.to_owned());
        if known != cluster {
            return Err(format!(
                "belongs to cluster {cluster}, but others to {known}: name members of one cluster"
            ));
        }
        Ok(answer)
    }

    /// The record in a whole answer to a read.
    pub(crate) fn understand(&mut self, answer: &[u8]) -> Option<Option<Record>> {
        let answer = http::parse(answer).filter(|answer| answer.status == 200)?;
        let answer = self.judge(&answer.body).ok()?;
        record_in(&answer, &self.key).ok()
    }

    fn try_read(&mut self, until: Instant) -> Result<Option<Record>, String> {
        let question = json!({ "key": self.key });
        let answer = self.ask("/v3/kv/range", &question, until)?;
        record_in(&answer, &self.key)
    }

    fn try_cas(&mut self, expect: Generation, record: &Record) -> Result<Outcome, String> {
        let until = Instant::now() + CALL_LIMIT;
        let now = self.try_read(until)?;
        if now.as_ref() == Some(record) {
            // An earlier copy of this request took place.
            return self.guard.won(expect, record, record);
        }
        let generation = now.map_or(Generation(0), |now| now.generation);
        if generation != expect || expect.0.checked_add(1) != Some(record.generation.0) {
            return self.guard.lost(now);
        }
        let key = &self.key;
        let compare = match &now {
            None => json!({
                "key": key, "result": "EQUAL", "target": "CREATE", "create_revision": "0",
            }),
            Some(now) => json!({
                "key": key, "result": "EQUAL", "target": "VALUE",
                "value": base64::encode(&encode_record(now)),
            }),
        };
        let read = json!({ "request_range": { "key": key } });
        let put = json!({ "request_put": {
            "key": key, "value": base64::encode(&encode_record(record)),
        } });
        let question = json!({ "compare": [compare], "success": [put, read], "failure": [read] });
        let answer = self.ask("/v3/kv/txn", &question, until)?;
        let succeeded = answer["succeeded"] == true;
        let shown = &answer["responses"][usize::from(succeeded)]["response_range"];
        match record_in(shown, &self.key)? {
            Some(now) if now == *record => self.guard.won(expect, record, &now),
            now if succeeded => Err(format!(
                "took the change and shows {} after it",
                now.map_or("no record".to_owned(), |now| now.to_string())
            )),
            now => self.guard.lost(now),
        }
    }

    fn answer(&mut self, result: Result<Outcome, String>) -> Outcome {
        result.unwrap_or_else(|why| {
            self.trouble = Some(format!("arbiter etcd: {}", one_line(&why)));
            Outcome::Unknown
        })
    }
}

/// Nothing came until the time was over.
fn is_silence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
    )
}

/// The record in the answer to a read of one key.
fn record_in(answer: &Value, key: &str) -> Result<Option<Record>, String> {
    let unfit = || format!("answers as etcd does not: {answer}");
    if !answer["header"].is_object() {
        return Err(unfit());
    }
    // A number of 64 bits is a string in JSON, and one that is 0 is left out.
    let count = match &answer["count"] {
        Value::Null => "0",
        Value::String(count) => count,
        _ => return Err(unfit()),
    };
    match (count, answer["kvs"].as_array().map(Vec::as_slice)) {
        ("0", None | Some([])) => Ok(None),
        ("1", Some([pair])) if pair["key"] == *key => {
            let value = pair["value"].as_str().ok_or_else(unfit)?;
            let bytes = base64::decode(value).ok_or_else(unfit)?;
            decode_record(&bytes).map(Some).map_err(|error| {
                format!("the value of key {key} (base64) is no record: {error}: restore it")
            })
        }
        _ => Err(unfit()),
    }
}

impl ArbiterContract for EtcdArbiter {
    fn read(&mut self) -> Outcome {
        let result = self
            .try_read(Instant::now() + CALL_LIMIT)
            .and_then(|record| self.guard.read(record));
        self.answer(result)
    }

    fn cas(&mut self, expect: Generation, record: Record) -> Outcome {
        let result = self.try_cas(expect, &record);
        self.answer(result)
    }
}

impl ArbiterBackend for EtcdArbiter {
    fn take_trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }
}

/// Bytes as text (RFC 4648, section 4).
mod base64 {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    pub(super) fn encode(bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
        for part in bytes.chunks(3) {
            let byte = |at: usize| u32::from(part.get(at).copied().unwrap_or(0));
            let word = byte(0) << 16 | byte(1) << 8 | byte(2);
            for at in 0..4 {
                text.push(match at <= part.len() {
                    true => char::from(DIGITS[(word >> (18 - 6 * at) & 63) as usize]),
                    false => '=',
                });
            }
        }
        text
    }

    /// The bytes, if `text` is what [`encode`] makes of them.
    pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
        for part in text.as_bytes().chunks(4) {
            let padding = part.iter().rev().take_while(|byte| **byte == b'=').count();
            let mut word = 0;
            for byte in part.iter().take(4 - padding.min(4)) {
                let digit = DIGITS.iter().position(|digit| digit == byte)?;
                word = word << 6 | digit as u32;
            }
            if padding > 2 {
                return None;
            }
            word <<= 6 * padding;
            let three = [(word >> 16) as u8, (word >> 8) as u8, word as u8];
            bytes.extend_from_slice(&three[..3 - padding]);
        }
        (encode(&bytes) == text).then_some(bytes)
    }
}

#[cfg(test)]
mod tests;
