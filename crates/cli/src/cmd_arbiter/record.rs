//! `show` and `reset`: the record for people.

use std::io::{IsTerminal, stdin};
use std::path::PathBuf;

use serde_json::{Value, json};
use twinvm_config::{Arbiter, VmConfig};
use twinvm_host::arbiter::{ArbiterKeys, OpenError};
use twinvm_host::arbiter_worker::ArbiterBackend;
use twinvm_host::random::random_u128;
use twinvm_host::store::id_of;
use twinvm_protocol::{Generation, Incarnation, LiveName, NodeId, Outcome as Told, Record};

use crate::say;
use crate::{BAD_INPUT, FAULT, Outcome};

/// The arbiter does not answer, or somebody else was faster.
const NOT_DONE: u8 = 1;
/// Times that one change is sent while its outcome is unknown.
const TRIES: usize = 3;
/// Generations that a reset raises an empty register by, at most: each is a change.
const MAX_RAISE: u64 = 10_000;

/// Which record.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["file", "arbiter"])))]
struct Which {
    /// The VM's file
    file: Option<PathBuf>,
    /// In place of the file: the arbiter, as the file's key of this name has it. One that needs
    /// keys is reached by a file with [tls] or [arbiter_tls] alone
    #[arg(long, value_name = "ADDRESS", requires = "vm")]
    arbiter: Option<String>,
    /// In place of the file: the VM's name
    #[arg(
        long,
        value_name = "NAME",
        requires = "arbiter",
        conflicts_with = "file"
    )]
    vm: Option<String>,
}

/// Shows the record: who may run the VM
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  twinvm arbiter show VM.toml
  twinvm arbiter show --arbiter tcp:127.0.0.1:7790 --vm shop --json

In JSON: {\"vm\", \"arbiter\", \"record\"}; the record is null if there is none, else it has
generation, live {id, incarnation, name}, backup (null or {id, session, name}) and halted. Names are
known of nodes that have their folder on this host, else null.

Exit codes:
  0    shown, also that there is no record
  1    the arbiter does not answer; the message says why
  2    bad input")]
pub(super) struct ShowArgs {
    #[command(flatten)]
    which: Which,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

/// Names the node that may start the VM, when no node could by itself
///
/// For when the node that the record names live is lost for good with its folder, or the arbiter
/// has lost its records. Otherwise start the nodes: they find out by themselves.
///
/// The new record says that the VM is off and that the chosen node alone may start it. Its
/// generation is higher than the one before (it never goes back), so what any other node was
/// entitled to by the old record has ended: a backup that still holds the VM can't claim it. The
/// chosen node starts the VM as soon as it runs, anew: what was in the VM's memory is lost, and so
/// is whatever the chosen node has not got on its own disks. The other node joins it. If the VM has
/// replicated disks, the chosen node waits and says what its own are worth: then
/// `twinvm node --force` starts it from them.
///
/// END BOTH NODES FIRST. A live node that runs alone asks the arbiter nothing: it would not learn of
/// this and go on, and there would be two VMs with one address. (One that has a backup goes on until
/// it loses it, then finds out and stops; what it did meanwhile is lost.)
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  twinvm arbiter reset VM.toml --live b
  twinvm arbiter reset --arbiter tcp:127.0.0.1:7790 --vm shop \\
      --live 5f0c31d2a97e4b6885d2c1f3a0b4e679 --above 12 --yes

A node's id is in STATE_DIR/NAME/node.id, and the highest generation that it knows in
STATE_DIR/NAME/generation.

Exit codes:
  0    done
  1    the arbiter does not answer, or the record was changed meanwhile; the message says which
  2    bad input, or not confirmed; nothing was changed")]
pub(super) struct ResetArgs {
    #[command(flatten)]
    which: Which,
    /// Who may start the VM: a node's name, if its folder is on this host, or its id
    #[arg(long, value_name = "NODE")]
    live: String,
    /// Go above this generation at least. For an arbiter that has lost its records: the highest
    /// that any node knows
    #[arg(long, value_name = "GENERATION", default_value_t = 0)]
    above: u64,
    /// Don't ask for the VM's name to be typed
    #[arg(long)]
    yes: bool,
}

/// A register and what is known of its VM here.
struct Register {
    vm: String,
    address: Arbiter,
    backend: Box<dyn ArbiterBackend>,
    /// Nodes with a folder on this host.
    nodes: Vec<(NodeId, String)>,
}

fn bad(why: impl std::fmt::Display) -> (u8, String) {
    (BAD_INPUT, why.to_string())
}

impl Register {
    fn open(which: &Which) -> Result<Self, (u8, String)> {
        let (vm, address, nodes, keys) = match (&which.file, &which.arbiter, &which.vm) {
            (Some(file), ..) => {
                let vm = VmConfig::load(file).map_err(bad)?;
                let lacking = || bad(format!("{}: names no arbiter", file.display()));
                let address = vm.arbiter.clone().ok_or_else(lacking)?;
                let mut nodes = Vec::new();
                for node in &vm.nodes {
                    let id = id_of(&vm.state_dir, &node.name).map_err(bad)?;
                    nodes.extend(id.map(|id| (id, node.name.clone())));
                }
                // On each host there are one node's keys, on one for both those of both.
                let keys = vm.nodes.iter().map(|node| ArbiterKeys {
                    cluster: vm.tls_of(&node.name).map(|it| (it, node.name.clone())),
                    etcd: vm.arbiter_tls_of(&node.name),
                });
                let keys: Vec<_> = keys.collect();
                (vm.name, address, nodes, keys)
            }
            (None, Some(address), Some(vm)) => {
                let parsed = Arbiter::parse(address, |folder| PathBuf::from(folder))
                    .map_err(|error| bad(format!("--arbiter {address}: {error}")))?;
                (vm.clone(), parsed, Vec::new(), Vec::new())
            }
            _ => return Err(bad("give a VM's file, or --arbiter and --vm")),
        };
        // A backend would make it, and an empty one says nothing.
        if let Arbiter::File(folder) = &address
            && !folder.is_dir()
        {
            let folder = folder.display();
            return Err(bad(format!(
                "arbiter folder {folder}: there is none: is the right storage mounted?"
            )));
        }
        let none = ArbiterKeys::default();
        let mut opened = address.open(&vm, keys.first().unwrap_or(&none));
        for keys in keys.iter().skip(1) {
            if matches!(opened, Err(OpenError::Tls(_))) {
                opened = address.open(&vm, keys);
            }
        }
        let backend = opened.map_err(bad)?;
        Ok(Self {
            vm,
            address,
            backend,
            nodes,
        })
    }

    fn read(&mut self) -> Result<Option<Record>, (u8, String)> {
        match self.backend.read() {
            Told::Read(record) => Ok(record),
            _ => Err(self.silent()),
        }
    }

    /// Why there was no answer.
    fn silent(&mut self) -> (u8, String) {
        let why = self.backend.take_trouble();
        let unknown = || format!("arbiter {}: no answer", self.address);
        (NOT_DONE, why.unwrap_or_else(unknown))
    }

    /// A node as people know it.
    fn node(&self, id: NodeId) -> String {
        match self.name(id) {
            Some(name) => format!("node {name} (id {:032x})", id.0),
            None => format!("node {:032x}", id.0),
        }
    }

    fn name(&self, id: NodeId) -> Option<&str> {
        let mut nodes = self.nodes.iter();
        nodes.find(|(known, _)| *known == id).map(|(_, n)| &n[..])
    }

    /// The record in words.
    fn words(&self, record: Option<&Record>) -> String {
        let Some(record) = record else {
            return format!("VM {}: no record: it has never been started", self.vm);
        };
        let live = self.node(record.live.id);
        let what = match (&record.backup, record.halted) {
            (Some(backup), false) => {
                let backup = self.node(backup.id);
                format!("{live} is live, {backup} is its backup and may claim the VM")
            }
            (None, false) => format!("{live} is live, alone"),
            (_, true) => format!("off, and {live} may start it"),
        };
        format!("VM {}: generation {}: {what}", self.vm, record.generation)
    }

    fn json(&self, record: Option<&Record>) -> Value {
        let record = record.map(|record| {
            let live = &record.live;
            json!({
                "generation": record.generation.0,
                "live": {
                    "id": format!("{:032x}", live.id.0),
                    "incarnation": format!("{:032x}", live.incarnation.0),
                    "name": self.name(live.id),
                },
                "backup": record.backup.map(|backup| json!({
                    "id": format!("{:032x}", backup.id.0),
                    "session": format!("{:032x}", backup.session.0),
                    "name": self.name(backup.id),
                })),
                "halted": record.halted,
            })
        });
        json!({ "vm": self.vm, "arbiter": self.address.to_string(), "record": record })
    }

    /// Changes the record, and knows that it did.
    fn change(&mut self, expect: Generation, record: Record) -> Result<(), (u8, String)> {
        for _ in 0..TRIES {
            match self.backend.cas(expect, record) {
                Told::Won(_) => return Ok(()),
                Told::Lost(Some(now)) if now == record => return Ok(()),
                Told::Lost(now) => {
                    let now = self.words(now.as_ref());
                    return Err((
                        NOT_DONE,
                        format!("the record was changed meanwhile, and not by this: {now}"),
                    ));
                }
                Told::Read(_) | Told::Unknown => {}
            }
        }
        let (code, why) = self.silent();
        Err((
            code,
            format!(
                "{why}: it may have been changed or be changed yet: look with show, then repeat"
            ),
        ))
    }
}

/// Shows the record.
pub(super) fn show(args: &ShowArgs) -> Outcome {
    let mut register = Register::open(&args.which)?;
    let record = register.read()?;
    if args.json {
        say::answer(register.json(record.as_ref()))?;
    } else {
        say::answer(register.words(record.as_ref()))?;
    }
    Ok(0)
}

/// The id of the node that a person means.
fn chosen(register: &Register, text: &str) -> Result<NodeId, (u8, String)> {
    if let Some((id, _)) = register.nodes.iter().find(|(_, name)| name == text) {
        return Ok(*id);
    }
    let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match u128::from_str_radix(text, 16) {
        Ok(id) if digits => Ok(NodeId(id)),
        _ => Err(bad(format!(
            "--live {text}: no node of that name has run on this host: give its id, the 32 digits in its folder's node.id"
        ))),
    }
}

/// Names the node that may start the VM.
pub(super) fn reset(args: &ResetArgs) -> Outcome {
    let mut register = Register::open(&args.which)?;
    let id = chosen(&register, &args.live)?;
    let before = register.read()?;
    let mut generation = before.map_or(Generation(0), |record| record.generation);
    let raise = args.above.saturating_sub(generation.0);
    if raise > MAX_RAISE {
        return Err(bad(format!(
            "--above {}: {raise} above what the arbiter has, at most {MAX_RAISE} are possible: is it the right arbiter?",
            args.above
        )));
    }
    // A node's disks may be marked as those of a change to the next generation, which was sent and
    // never made: the record that stays must not be taken for that one.
    let Some(enough) = generation.0.max(args.above).checked_add(2) else {
        return Err(bad("there is no higher generation"));
    };
    confirm(args, &register, before.as_ref(), id)?;
    loop {
        // Drawn for each record, so that none equals another one's.
        let incarnation = random_u128().map_err(|error| (FAULT, error.to_string()))?;
        let record = Record {
            generation: generation.next(),
            live: LiveName {
                id,
                incarnation: Incarnation(incarnation),
            },
            backup: None,
            halted: true,
        };
        register.change(generation, record)?;
        generation = record.generation;
        if generation.0 >= enough {
            say::answer(register.words(Some(&record)))?;
            return Ok(0);
        }
    }
}

/// Has a person say that this is meant.
fn confirm(
    args: &ResetArgs,
    register: &Register,
    before: Option<&Record>,
    id: NodeId,
) -> Result<(), (u8, String)> {
    if args.yes {
        return Ok(());
    }
    say::line(format_args!(
        "Now: {}\nAfter this: off, and {} may start it, anew: what was in the VM's memory is lost.\n\
         Both nodes must have ended: a live one that runs alone would not notice and go on.",
        register.words(before),
        register.node(id)
    ));
    let refused = || bad("not confirmed, nothing was changed: type the VM's name, or give --yes");
    if !stdin().is_terminal() {
        return Err(refused());
    }
    say::part(format_args!(
        "Type the VM's name, {}, to go on: ",
        register.vm
    ));
    let mut typed = String::new();
    match stdin().read_line(&mut typed) {
        Ok(_) if typed.trim() == register.vm => Ok(()),
        _ => Err(refused()),
    }
}
