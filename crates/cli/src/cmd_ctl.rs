//! `twinvm ctl`: ask a running node.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use twinvm_config::VmConfig;
use twinvm_host::ctl_socket::{CtlRequest, request, request_with};
use twinvm_host::store::ctl_path;

use crate::say;
use crate::{BAD_INPUT, Outcome};

/// How long `stop` waits for the VM to be off.
const STOP_WAIT: Duration = Duration::from_secs(10);
/// How often it looks.
const STOP_TURN: Duration = Duration::from_millis(50);

/// Asks a running node of this host.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  twinvm ctl VM.toml --name a status          who is live, is the VM protected
  twinvm ctl VM.toml --name a status --json   the same for programs
  twinvm ctl VM.toml --name a stop            power the VM off, on both hosts
  twinvm ctl VM.toml --name a snapshot --out redis.snap
  twinvm run --from redis.snap                go on from there, alone on any host

Exit codes:
  0    answered; for stop: the VM is off
  1    stop: asked, but the VM is not off yet; the message says what it waits for
  2    bad input, the node doesn't run, or it refuses; the message says why")]
pub(crate) struct CtlArgs {
    /// The VM's file.
    file: PathBuf,
    /// The node of this host to ask.
    #[arg(long)]
    name: String,
    /// What to ask.
    #[command(subcommand)]
    what: What,
    /// Answer in JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum What {
    /// Who is live, whether the VM is protected, and how fast all is.
    Status,
    /// Hand the VM to the backup; this node joins again.
    Takeover,
    /// Live node: send the backup away. Backup: leave.
    Detach,
    /// Power the VM off for good, on both hosts.
    Stop,
    /// The digest of the guest's whole state, and its step count.
    Digest,
    /// Write the machine's whole state to a file, for `twinvm run --from`
    ///
    /// The guest goes on meanwhile: it waits only for registers and devices, well below 5 ms.
    /// Any node that has the machine can: the live one's snapshot is of this moment, a backup's
    /// of the step that it has replayed. Ending this command gives the snapshot up.
    Snapshot {
        /// The file: it appears when it is complete and durable [default: snapshot-STEP in
        /// the node's folder].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Replace a file of that name.
        #[arg(long)]
        force: bool,
    },
}

/// Asks; the exit code, or what to say and the exit code.
pub(crate) fn run(args: CtlArgs) -> Outcome {
    let bad = |error: &dyn std::fmt::Display| (BAD_INPUT, error.to_string());
    let vm = VmConfig::load(&args.file).map_err(|error| bad(&error))?;
    vm.pair(&args.name).map_err(|error| bad(&error))?;
    let what = match args.what {
        What::Status => CtlRequest::Status {},
        What::Takeover => CtlRequest::Takeover {},
        What::Detach => CtlRequest::Detach {},
        What::Stop => CtlRequest::Stop {},
        What::Digest => CtlRequest::Digest {},
        What::Snapshot { ref out, force } => CtlRequest::Snapshot {
            // The node may run in another folder.
            to: match out {
                Some(path) => Some(std::path::absolute(path).map_err(|e| bad(&e))?),
                None => None,
            },
            force,
        },
    };
    let socket = ctl_path(&vm.state_dir, &args.name);
    let mut shown = Shown::default();
    let answer = request_with(&socket, &what, &mut |value| shown.progress(value));
    shown.clear();
    let answer = answer.map_err(|e| bad(&e))?;
    if matches!(args.what, What::Stop) {
        wait_for_end(&socket)?;
    }
    if args.json {
        say::answer(answer)?;
    } else {
        say::answer(told(&args.what, &answer))?;
    }
    Ok(0)
}

/// A stop is done when the node has ended: its outputs are out and the record says so.
fn wait_for_end(socket: &Path) -> Result<(), (u8, String)> {
    let until = Instant::now() + STOP_WAIT;
    loop {
        let Ok(status) = request(socket, &CtlRequest::Status {}) else {
            return Ok(());
        };
        if Instant::now() >= until {
            let note = status["waiting_for"].as_str().unwrap_or_default();
            return Err((1, format!("asked, but the VM is not off yet: {note}")));
        }
        thread::sleep(STOP_TURN);
    }
}

/// The answer for people, as lines.
fn told(what: &What, answer: &Value) -> String {
    match what {
        What::Status => status_lines(answer).join("\n"),
        What::Digest => format!(
            "step {} digest {}",
            answer["icount"],
            answer["digest"].as_str().unwrap_or_default()
        ),
        What::Takeover | What::Detach => "begun".to_owned(),
        What::Stop => "the VM is off".to_owned(),
        What::Snapshot { .. } => format!(
            "{}: step {}, {} bytes; the guest waited {} µs",
            answer["path"].as_str().unwrap_or_default(),
            answer["icount"],
            answer["bytes"],
            answer["pause_us"]
        ),
    }
}

/// Progress on a person's terminal.
#[derive(Default)]
struct Shown(bool);

impl Shown {
    fn progress(&mut self, value: &Value) {
        if std::io::stderr().is_terminal()
            && let Some(bytes) = value["bytes"].as_u64()
        {
            say::part(format_args!("\r{} MiB written", bytes >> 20));
            self.0 = true;
        }
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.0) {
            say::part(format_args!("\r{:30}\r", ""));
        }
    }
}

/// What an unprotected node has said last, if it has said anything.
fn note(answer: &Value) -> Option<&str> {
    let note = answer["waiting_for"].as_str()?;
    (answer["protected"] != true && !note.is_empty()).then_some(note)
}

fn status_lines(answer: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let protected = if answer["protected"] == true {
        "protected"
    } else {
        "NOT protected"
    };
    lines.push(format!(
        "VM {}: {protected}, generation {}",
        text(&answer["vm"]),
        text(&answer["generation"])
    ));
    for node in answer["nodes"].as_array().into_iter().flatten() {
        lines.push(format!(
            "  node {}: {}, step {}, channel {}",
            text(&node["name"]),
            text(&node["role"]),
            text(&node["icount"]),
            text(&node["peer"])
        ));
    }
    lines.push(format!(
        "  lag {} ms, log {} B/s, {} MIPS",
        text(&answer["lag_ms"]),
        text(&answer["log_bytes_s"]),
        text(&answer["mips"])
    ));
    if let (Some(p50), Some(p99)) = (
        answer["output_hold_us"]["p50"].as_u64(),
        answer["output_hold_us"]["p99"].as_u64(),
    ) {
        lines.push(format!("  output held {p50} µs (median), {p99} µs (99 %)"));
    }
    if !answer["last_takeover"].is_null() {
        let takeover = &answer["last_takeover"];
        lines.push(format!(
            "  last takeover: detect {} + drain {} + arbitrate {} + announce {} ms",
            text(&takeover["detect_ms"]),
            text(&takeover["drain_ms"]),
            text(&takeover["arbitrate_ms"]),
            text(&takeover["announce_ms"])
        ));
    }
    if !answer["divergence"].is_null() {
        lines.push(format!("  ALARM: {}", text(&answer["divergence"])));
    }
    if let Some(note) = note(answer) {
        lines.push(format!("  last note: {note}"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::note;
    use serde_json::json;

    #[test]
    fn a_note_is_told_if_there_is_one_and_it_matters() {
        let waits = json!({"protected": false, "waiting_for": "waiting"});
        assert_eq!(note(&waits), Some("waiting"));
        for silent in [
            json!({"protected": false, "waiting_for": ""}),
            json!({"protected": false}),
            json!({"protected": true, "waiting_for": "paired"}),
        ] {
            assert_eq!(note(&silent), None, "{silent}");
        }
    }
}
