//! `twinvm node`: one host's process for one VM.

use std::ffi::OsStr;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use twinvm_config::VmConfig;
use twinvm_host::fence::Fence;
use twinvm_host::hooks::Hooks;
use twinvm_host::node::{ForcedStart, NodeOptions, Operation, Wire};
use twinvm_host::port::PortAddress;
use twinvm_host::sandbox::{Confinement, User};
use twinvm_machine::EngineKind;
use twinvm_nbd::address::Address;

use crate::engine_arg::EngineArg;
use crate::guest;
use crate::process_args::{LogFormatArg, ProcessArgs};
use crate::{BAD_INPUT, FAULT, Outcome};

/// The command of this program that runs hooks for a node.
pub(crate) const HOOK_RUNNER: &str = "hook-runner";
/// The command of this program that runs a disk's `fence` for a node.
pub(crate) const FENCE_RUNNER: &str = "fence-runner";
/// Itself, even if the file has been replaced since.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Runs one of the VM's two nodes on this host.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example, on one host each, with the same file:
  twinvm node VM.toml --name a
  twinvm node VM.toml --name b

Which of them is live is not configured: they find out, and the arbiter decides.
SIGTERM or Ctrl-C on a protected VM's node hands the VM to the other node. On the only node
it powers the VM off, and what was in its memory is gone. A second signal ends the node at once.

On two hosts the nodes need keys, and VM.toml [tls]: see twinvm keys --help.

A node needs none of root's rights: run it as a user of its own, or start it as root with --user:
  twinvm node VM.toml --name a --user twinvm
Its folder, its keys, its TAP interface and a file: arbiter's folder must be that user's.

A service manager that sets NOTIFY_SOCKET (systemd, Type=notify) hears when the node is up and how
the VM is. VM.toml [hooks] names a command that hears when protection is lost or regained, and
[metrics], or --metrics, where Prometheus can read figures.

After a power-off the node that was live last starts the VM again; the other one joins it. If that
node is lost for good, the other one can be told to start from what its own disks have:
  twinvm node VM.toml --name b --force                  what would be lost; nothing is changed
  twinvm node VM.toml --name b --force --peer-is-off    starts, if the other node doesn't answer

Exit codes:
  0    ended in good order
  2    bad input, or a forced start that is refused or lacks --peer-is-off; nothing ran
  125  a fault of twinvm's own")]
pub(crate) struct NodeArgs {
    /// The VM's file, the same on both hosts.
    file: PathBuf,
    /// Which of the file's two nodes this is.
    #[arg(long)]
    name: String,
    /// What executes the guest on this node, which can't tell; jit where the host can. The other
    /// node may have the other one
    #[arg(long, value_name = "NAME")]
    engine: Option<EngineArg>,
    /// How lines on standard error look: for people, or a JSON object on each
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormatArg,
    /// Where figures for Prometheus can be read, in place of VM.toml's [metrics]: anyone who
    /// reaches the port may read them, so a loopback address unless monitoring is elsewhere
    #[arg(long, value_name = "HOST:PORT")]
    metrics: Option<String>,
    /// For measurements: note in marks.log of the node's folder when each output passes the places
    /// on its way (twinvm bench hops reads it); the file ends at 64 MiB
    #[arg(long)]
    marks: bool,
    /// Start the VM from this node's disks whatever the record names, when the other node never
    /// comes back. Says what would be lost; nothing happens without --peer-is-off
    #[arg(long)]
    force: bool,
    /// With --force: the other node is off for certain, or cut off from its clients, the arbiter
    /// and this host. If it were live, there would be two VMs with one address
    #[arg(long, requires = "force")]
    peer_is_off: bool,
    /// With --force: also from disks that another node's copy was half written over
    #[arg(long, requires = "force")]
    from_half_a_copy: bool,
    #[command(flatten)]
    process: ProcessArgs,
}

/// Address of the figures, if they are wanted.
fn metrics(args: &NodeArgs, vm: &VmConfig) -> Result<Option<SocketAddr>, String> {
    if let Some(text) = &args.metrics {
        let mut found = text.to_socket_addrs().map_err(|error| {
            format!("--metrics {text}: {error}: expected HOST:PORT such as 127.0.0.1:9177")
        })?;
        let found = found.next();
        return Ok(Some(found.ok_or(format!("--metrics {text}: no address"))?));
    }
    let listen = vm.metrics.as_ref();
    listen
        .map(|listen| resolve("metrics", &listen.host, listen.port))
        .transpose()
}

/// The words that start a process beside the node which runs commands for it, as the same user.
fn helper_words<'a>(name: &'a str, args: &'a NodeArgs) -> Vec<&'a str> {
    let mut words = vec![name];
    if let Some(user) = args.process.user() {
        words.extend(["--user", user]);
    }
    words
}

/// Starts the hook's process, if VM.toml has a hook.
fn hooks(
    vm: &VmConfig,
    (own, peer): (&str, &str),
    args: &NodeArgs,
) -> Result<Option<Hooks>, String> {
    let Some(command) = vm.hooks.clone() else {
        return Ok(None);
    };
    Hooks::start(
        OsStr::new(OWN_PROGRAM),
        &helper_words(HOOK_RUNNER, args),
        (&vm.name, own, peer),
        args.log_format.into(),
        command,
    )
    .map(Some)
    .map_err(|error| format!("[hooks]: can't start the process that runs the command: {error}"))
}

fn resolve(what: &str, host: &str, port: u16) -> Result<SocketAddr, String> {
    let mut found = (host, port)
        .to_socket_addrs()
        .map_err(|error| format!("{what} {host}:{port}: {error}"))?;
    found
        .next()
        .ok_or_else(|| format!("{what} {host}:{port}: no address"))
}

fn options(args: NodeArgs, confinement: Confinement) -> Result<NodeOptions, String> {
    let vm = VmConfig::load(&args.file).map_err(|error| error.to_string())?;
    let (own, peer) = vm.pair(&args.name).map_err(|error| error.to_string())?;
    // A pair has one: `pair` has looked.
    let arbiter = vm.arbiter.clone().ok_or("no arbiter")?;
    let wires = (0..).zip(&vm.nets).map(|(device, net)| Wire {
        device,
        // A node's own interface is in place of the first card's.
        address: match &own.tap {
            Some(name) if device == 0 => PortAddress::Tap(name.clone()),
            _ => net.backend.clone(),
        },
    });
    let fence = |disk: &Address, command| {
        let names = (&*vm.name, &*own.name, &*peer.name);
        let words = helper_words(FENCE_RUNNER, &args);
        Fence::start(
            OsStr::new(OWN_PROGRAM),
            &words,
            names,
            disk.to_string(),
            command,
        )
    };
    let (slots, disks, shared) =
        guest::own_disks(&vm, own, fence).map_err(|error| error.to_string())?;
    let machine = guest::machine_config(&vm, slots).map_err(|error| error.to_string())?;
    // A machine that cannot be made is bad input now, not a fault at the first start.
    let power_on = twinvm_machine::PowerOn {
        rng_seed: [0; 32],
        rtc_base_ns: 0,
    };
    let mut trial = twinvm_machine::Machine::new(machine.clone(), power_on)
        .map_err(|error| guest::blame(&vm, error).to_string())?;
    let engine = args.engine.map(EngineKind::from);
    if let Some(engine) = engine {
        trial
            .set_engine(engine)
            .map_err(|error| error.to_string())?;
    }
    let metrics = metrics(&args, &vm)?;
    Ok(NodeOptions {
        vm: vm.name.clone(),
        name: own.name.clone(),
        peer_name: peer.name.clone(),
        state_dir: vm.state_dir.clone(),
        listen: resolve("channel", &own.channel.host, own.channel.port)?,
        peer: resolve("channel", &peer.channel.host, peer.channel.port)?,
        tls: vm.tls_of(&own.name),
        arbiter,
        arbiter_tls: vm.arbiter_tls_of(&own.name),
        machine,
        engine,
        wires: wires.collect(),
        disks,
        shared,
        flush: vm.flush,
        sync_bytes_s: vm.sync_mib_s.map(|mib| mib << 20),
        protect: vm.protect,
        forced: args.force.then_some(ForcedStart {
            peer_is_off: args.peer_is_off,
            from_half_a_copy: args.from_half_a_copy,
        }),
        operation: Operation {
            log_format: args.log_format.into(),
            metrics,
            marks: args.marks,
            // The last thing that can fail: nothing of it is left behind then.
            hooks: hooks(&vm, (&own.name, &peer.name), &args)?,
        },
        confinement,
    })
}

/// Runs the node until it ends; the exit code, or what to say and the exit code.
pub(crate) fn run(args: NodeArgs) -> Outcome {
    let confinement = args.process.confinement()?;
    let options = options(args, confinement).map_err(|message| (BAD_INPUT, message))?;
    match twinvm_host::node::run(options) {
        Ok(_) => Ok(0),
        Err(error) if error.is_bad_input() => Err((BAD_INPUT, error.to_string())),
        Err(error) => Err((FAULT, error.to_string())),
    }
}

/// What a node starts to run commands of its owner's
#[derive(Debug, clap::Args)]
pub(crate) struct RunnerArgs {
    /// Whom it becomes, as the node does
    #[arg(long)]
    user: Option<String>,
}

/// Runs the hook's command for a node: it is the node that starts this.
pub(crate) fn run_hooks(args: &RunnerArgs) -> Outcome {
    run_beside(args, twinvm_host::hooks::runner::run)
}

/// Runs a disk's `fence` for a node: it is the node that starts this.
pub(crate) fn run_fence(args: &RunnerArgs) -> Outcome {
    run_beside(args, twinvm_host::fence::run)
}

fn run_beside(args: &RunnerArgs, run: fn() -> std::io::Result<()>) -> Outcome {
    if let Some(user) = &args.user {
        let confinement = Confinement {
            user: Some(User::find(user).map_err(|error| (BAD_INPUT, error.to_string()))?),
            // It starts programs.
            sandbox: false,
        };
        confinement
            .enter(&[])
            .map_err(|error| (FAULT, error.to_string()))?;
    }
    match run() {
        Ok(()) => Ok(0),
        Err(error) => Err((FAULT, error.to_string())),
    }
}
