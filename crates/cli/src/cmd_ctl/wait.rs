//! Waits for what was asked for, and says how it ended.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use twinvm_host::ctl_socket::{CtlError, CtlRequest, request};

/// How long `stop` waits for the VM to be off.
const STOP_WAIT: Duration = Duration::from_secs(10);
/// How long `takeover` waits until the VM is protected again: a snapshot goes over the channel.
const TAKEOVER_WAIT: Duration = Duration::from_secs(120);
/// How long `detach` waits for the arbiter.
const DETACH_WAIT: Duration = Duration::from_secs(10);
/// How long `digest` waits for the backup to come to that step.
const DIGEST_WAIT: Duration = Duration::from_secs(10);
/// How often they look.
const TURN: Duration = Duration::from_millis(20);

/// How a wait ended: the answer, or what to say (exit code 1).
pub(super) type Waited = Result<Value, String>;

fn status(socket: &Path) -> Option<Value> {
    request(socket, &CtlRequest::Status {}).ok()
}

fn note(status: &Value) -> &str {
    status["waiting_for"].as_str().unwrap_or_default()
}

/// The other node's name.
fn peer(status: &Value) -> &str {
    status["nodes"][1]["name"].as_str().unwrap_or_default()
}

/// A stop is done when the node has ended in good order, which takes its socket away: its outputs
/// are out and the record says so. A node that was killed, or ended for another reason after it was
/// asked, leaves it.
pub(super) fn for_end(socket: &Path) -> Result<(), String> {
    let until = Instant::now() + STOP_WAIT;
    loop {
        let waits_for = match request(socket, &CtlRequest::Status {}) {
            Ok(status) => note(&status).to_owned(),
            Err(CtlError::NotRunning { .. }) if !socket.exists() => return Ok(()),
            Err(CtlError::NotRunning { name, .. }) => {
                return Err(format!(
                    "asked, but node {name} was ended before it said that the VM is off: ask the \
                     other node for its status"
                ));
            }
            // It has too much to do, or is just ending.
            Err(error) => error.to_string(),
        };
        if Instant::now() >= until {
            return Err(format!(
                "asked, but the node has not ended yet: {waits_for}"
            ));
        }
        thread::sleep(TURN);
    }
}

/// What a status says about a takeover that was asked for at generation `before`.
#[derive(Debug, PartialEq, Eq)]
enum Handover {
    /// Not decided.
    Pending,
    /// The backup did not claim: the VM goes on here.
    Failed,
    /// The other node has it; this one is on its way back.
    Joining,
    /// Done.
    Protected,
}

fn handover(status: &Value, before: u64) -> Handover {
    let live = status["role"] == "live";
    let raised = status["generation"].as_u64().is_some_and(|g| g > before);
    match (live, raised) {
        (true, true) if status["link"] != "settling" => Handover::Failed,
        (true, _) => Handover::Pending,
        (false, _) if status["role"] == "backup" && status["protected"] == true => {
            Handover::Protected
        }
        (false, _) => Handover::Joining,
    }
}

/// Until the pair is protected again with its roles swapped.
pub(super) fn for_takeover(socket: &Path, before: &Value) -> Waited {
    let since = Instant::now();
    let other = peer(before);
    let generation = before["generation"].as_u64().unwrap_or_default();
    loop {
        let Some(status) = status(socket) else {
            return Err("asked, but this node has ended since; see its journal".to_owned());
        };
        let how = handover(&status, generation);
        match how {
            Handover::Protected => {
                return Ok(json!({
                    "live": other,
                    "backup": before["node"],
                    "generation": status["generation"],
                    "protected": true,
                    "seconds": (since.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
                }));
            }
            Handover::Failed => {
                return Err(format!(
                    "node {other} did not take over: the VM goes on here ({})",
                    note(&status)
                ));
            }
            Handover::Pending | Handover::Joining if since.elapsed() < TAKEOVER_WAIT => {}
            Handover::Pending => {
                return Err(format!("asked, but not decided yet: {}", note(&status)));
            }
            Handover::Joining => {
                return Err(format!(
                    "node {other} runs the VM, but it is not protected yet: {}",
                    note(&status)
                ));
            }
        }
        thread::sleep(TURN);
    }
}

/// Until the backup is gone: from the live node's view, or because it is this one.
pub(super) fn for_detach(socket: &Path, before: &Value) -> Waited {
    let live = before["role"] == "live";
    let until = Instant::now() + DETACH_WAIT;
    loop {
        let status = status(socket);
        let gone = match &status {
            Some(status) => live && status["link"] == "solo",
            None if live => return Err("asked, but this node has ended since".to_owned()),
            None => true,
        };
        if gone {
            let left = if live {
                peer(before).into()
            } else {
                before["node"].clone()
            };
            return Ok(json!({ "left": left, "protected": false }));
        }
        if Instant::now() >= until {
            let note = status.as_ref().map_or("", note);
            return Err(format!("asked, but the backup is not gone yet: {note}"));
        }
        thread::sleep(TURN);
    }
}

/// Adds to a digest whether the backup has the same: `"equal"`, or null if there is none.
pub(super) fn for_digest(socket: &Path, mut answer: Value) -> Waited {
    let Some(position) = answer["position"].as_u64() else {
        return Ok(answer);
    };
    let until = Instant::now() + DIGEST_WAIT;
    let mut before = None;
    loop {
        let status = status(socket).unwrap_or_default();
        let protected = status["protected"] == true && status["role"] == "live";
        let divided = before.get_or_insert_with(|| status["generation"].clone());
        if !protected || status["generation"] != *divided {
            answer["backup"] = Value::Null;
            return Ok(answer);
        }
        let come = status["nodes"][1]["position"].as_u64();
        if come.is_some_and(|come| come >= position) {
            answer["backup"] = "equal".into();
            return Ok(answer);
        }
        if Instant::now() >= until {
            return Err(format!(
                "step {}: the backup has not come to it within {} s; see status",
                answer["icount"],
                DIGEST_WAIT.as_secs()
            ));
        }
        thread::sleep(TURN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_done_when_the_socket_is_gone_and_not_when_nobody_listens_there() {
        let folder = tempfile::tempdir().unwrap();
        let node = folder.path().join("a");
        std::fs::create_dir(&node).unwrap();
        let socket = node.join("ctl.sock");
        assert_eq!(for_end(&socket), Ok(()));
        // What a node that was killed leaves.
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let why = for_end(&socket).unwrap_err();
        let begin = "asked, but node a was ended before it said that the VM is off";
        assert!(why.starts_with(begin), "{why}");
    }

    #[test]
    fn a_handover_is_what_the_record_says() {
        let status = |role: &str, link: &str, generation: u64, protected: bool| json!({"role": role, "link": link, "generation": generation, "protected": protected});
        for (status, expected) in [
            (status("live", "paired", 4, true), Handover::Pending),
            (status("live", "settling", 4, false), Handover::Pending),
            (status("live", "settling", 5, false), Handover::Pending),
            (status("live", "solo", 5, false), Handover::Failed),
            (
                status("live", "pairing: snapshot", 5, false),
                Handover::Failed,
            ),
            (status("live", "paired", 6, true), Handover::Failed),
            (status("frozen", "", 5, false), Handover::Joining),
            (status("cold", "", 5, false), Handover::Joining),
            (status("backup", "", 5, false), Handover::Joining),
            (status("backup", "", 6, true), Handover::Protected),
        ] {
            assert_eq!(handover(&status, 4), expected, "{status}");
        }
    }
}
