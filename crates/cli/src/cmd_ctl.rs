//! `twinvm ctl`: ask a running node.

mod wait;

use std::io::IsTerminal;
use std::path::PathBuf;

use serde_json::Value;
use twinvm_config::VmConfig;
use twinvm_host::ctl_socket::{CtlRequest, request, request_with};
use twinvm_host::store::ctl_path;

use crate::say;
use crate::{BAD_INPUT, Outcome};

/// Asks a running node of this host.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  twinvm ctl VM.toml --name a status          who is live, is the VM protected
  twinvm ctl VM.toml --name a status --json   the same for programs
  twinvm ctl VM.toml --name a takeover        the other node runs it, this one is its backup
  twinvm ctl VM.toml --name a stop            power the VM off, on both hosts
  twinvm ctl VM.toml --name a snapshot --out redis.snap
  twinvm run --from redis.snap                go on from there, alone on any host

Exit codes:
  0    answered; for stop, takeover and detach: done
  1    asked, but it has not come about (yet); the message says why, or what it waits for
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
    /// Hand the VM to the backup, without a loss; this node becomes its backup
    ///
    /// The guest stands still while the last outputs are acked and the arbiter is asked. Ends when
    /// the VM is protected again. If the backup dies on the way the VM goes on here.
    Takeover,
    /// Live node: send the backup away. Backup: leave
    ///
    /// The backup's process ends, and the VM goes on alone, unprotected. To protect it again start
    /// that node again.
    Detach,
    /// Power the VM off for good, on both hosts.
    Stop,
    /// The digest of the guest's whole state, and its step count
    ///
    /// The live node's backup computes it at the same step and compares: the answer says whether
    /// they are equal. Asked of a backup the last digest that was compared is told too.
    Digest,
    /// The figures for monitoring, as [metrics] in VM.toml has them served
    Metrics,
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
        What::Metrics => CtlRequest::Metrics {},
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
    let before = match args.what {
        What::Takeover | What::Detach => {
            request(&socket, &CtlRequest::Status {}).map_err(|e| bad(&e))?
        }
        _ => Value::Null,
    };
    let mut shown = Shown::default();
    let answer = request_with(&socket, &what, &mut |value| shown.progress(value));
    shown.clear();
    let answer = answer.map_err(|e| bad(&e))?;
    let answer = match args.what {
        What::Stop => wait::for_end(&socket).map(|()| answer),
        What::Takeover => wait::for_takeover(&socket, &before),
        What::Detach => wait::for_detach(&socket, &before),
        What::Digest => wait::for_digest(&socket, answer),
        What::Status | What::Metrics | What::Snapshot { .. } => Ok(answer),
    };
    let answer = answer.map_err(|why| (1, why))?;
    if args.json {
        say::answer(answer)?;
    } else {
        say::answer(told(&args.what, &answer))?;
    }
    Ok(0)
}

/// The answer for people, as lines.
fn told(what: &What, answer: &Value) -> String {
    match what {
        What::Status => status_lines(answer).join("\n"),
        What::Digest => digest_lines(answer),
        What::Metrics => answer.as_str().unwrap_or_default().trim_end().to_owned(),
        What::Takeover => format!(
            "node {} runs the VM now, node {} is its backup: protected again after {} s",
            text(&answer["live"]),
            text(&answer["backup"]),
            answer["seconds"]
        ),
        What::Detach => format!(
            "node {} has left: the VM goes on alone, NOT protected, until that node is started again",
            text(&answer["left"])
        ),
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

/// A value as a person reads it.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn digest_lines(answer: &Value) -> String {
    let line = |at: &Value| format!("step {} digest {}", at["icount"], text(&at["digest"]));
    let mut lines = line(answer);
    if answer["position"].is_null() {
        // A backup, or a VM that stands still.
        if !answer["compared"].is_null() {
            lines = format!(
                "{lines}\n{}, as the live node has it",
                line(&answer["compared"])
            );
        }
    } else if answer["backup"] == "equal" {
        lines.push_str("\nthe backup has the same");
    } else {
        lines.push_str("\nthere is no backup to compare it with");
    }
    lines
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

/// What an unprotected node has said last, if it has said anything that another line doesn't say.
fn note(answer: &Value) -> Option<&str> {
    let note = answer["waiting_for"].as_str()?;
    let said = answer["disks"]["stays_out"] == note;
    (answer["protected"] != true && !note.is_empty() && !said).then_some(note)
}

/// How far a copy of disks is, why the node joins nobody, and what requests of disks wait for.
fn disks(answer: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let copying = &answer["copying"];
    if let (Some(done), Some(total)) = (
        copying["done_bytes"].as_u64(),
        copying["total_bytes"].as_u64(),
    ) {
        let (to, stage) = (text(&copying["to"]), text(&copying["stage"]));
        lines.push(match (done >> 20, total >> 20) {
            // How much it is isn't known yet, or it is nothing.
            (0, 0) => format!("  disks to {to}: a copy begins"),
            // Only the live node knows.
            (done, 0) => format!("  disks to {to}: {stage}, {done} MiB so far"),
            (done, total) => format!("  disks to {to}: {stage}, {done} of {total} MiB"),
        });
    }
    if let Some(why) = answer["stays_out"].as_str() {
        lines.push(format!("  STAYS OUT: {why}"));
    }
    let waits = answer["waits"].as_array().into_iter().flatten();
    lines.extend(waits.map(|why| format!("  WAITS: {}", text(why))));
    lines
}

fn status_lines(answer: &Value) -> Vec<String> {
    let mut lines = Vec::new();
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
    lines.extend(disks(&answer["disks"]));
    if let Some(note) = note(answer) {
        lines.push(format!("  last note: {note}"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{disks, note};
    use serde_json::{Value, json};

    #[test]
    fn disks_on_their_way_are_told() {
        assert!(disks(&Value::Null).is_empty());
        let both = json!({
            "copying": {"to": "this node", "stage": "copied", "done_bytes": 5 << 20, "total_bytes": 9 << 20},
            "stays_out": "disk 0 fails here",
            "waits": ["disk nbd://h/x: fence has failed"],
        });
        assert_eq!(
            disks(&both),
            [
                "  disks to this node: copied, 5 of 9 MiB",
                "  STAYS OUT: disk 0 fails here",
                "  WAITS: disk nbd://h/x: fence has failed"
            ]
        );
        let copying = |done: u64| {
            json!({"copying": {
                "to": "this node", "stage": "copied", "done_bytes": done, "total_bytes": 0,
            }})
        };
        assert_eq!(disks(&copying(0)), ["  disks to this node: a copy begins"]);
        assert_eq!(
            disks(&copying(7 << 20)),
            ["  disks to this node: copied, 7 MiB so far"]
        );
    }

    #[test]
    fn a_note_is_told_if_there_is_one_and_it_matters() {
        let waits = json!({"protected": false, "waiting_for": "waiting"});
        assert_eq!(note(&waits), Some("waiting"));
        for silent in [
            json!({"protected": false, "waiting_for": ""}),
            json!({"protected": false}),
            json!({"protected": true, "waiting_for": "paired"}),
            json!({"protected": false, "waiting_for": "disk 0 fails", "disks": {"stays_out": "disk 0 fails"}}),
        ] {
            assert_eq!(note(&silent), None, "{silent}");
        }
    }
}
