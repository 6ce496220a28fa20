//! What a node needs of its host: opened before it begins, closed when it ends.

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use serde_json::Value;
use twinvm_protocol::message::Field;
use twinvm_protocol::{Identity, Incarnation};

use super::console::Console;
use super::disks::NodeDisks;
use super::keys::Keys;
use super::{CONSOLE_LOG, NodeError, NodeOptions, Reads};
use crate::arbiter::ArbiterKeys;
use crate::arbiter_worker::{ArbiterReply, ArbiterWorker};
use crate::channel::{ChannelEvent, ChannelHub};
use crate::ctl_socket::{CtlCall, CtlRequest, CtlServer, ask};
use crate::marks::{MARKS_LOG, Marks};
use crate::metrics::MetricsServer;
use crate::port::{Port, PortEvent};
use crate::random::random_u128;
use crate::signals::{SignalEvent, SignalWatch};
use crate::store::NodeStore;

/// Packets from the wire that wait for the guest: a burst of a few round trips, 16 MiB at most.
const FRAME_QUEUE: usize = 256;
/// Frames of the channel that wait for the loop; each may have 8 MiB, so few.
const CHANNEL_QUEUE: usize = 64;
/// Requests of people that wait for the loop.
const CTL_QUEUE: usize = 16;

/// The receiving ends of all queues that feed the loop.
pub(super) struct Inputs {
    pub(super) channel: Receiver<ChannelEvent>,
    pub(super) arbiter: Receiver<ArbiterReply>,
    pub(super) ctl: Receiver<CtlCall>,
    pub(super) wires: Vec<Receiver<PortEvent>>,
    pub(super) signals: Receiver<SignalEvent>,
}

/// What a node needs of its host, open.
pub(super) struct Surroundings {
    pub(super) inputs: Inputs,
    pub(super) hub: ChannelHub,
    pub(super) marks: Marks,
    pub(super) keys: Keys,
    pub(super) arbiter: ArbiterWorker,
    pub(super) arbiter_replies: Sender<ArbiterReply>,
    pub(super) ports: Vec<(u8, Port)>,
    pub(super) disks: NodeDisks,
    pub(super) ctl_server: CtlServer,
    pub(super) metrics: Option<MetricsServer>,
    pub(super) signals: SignalWatch,
    pub(super) console: Console,
}

impl Surroundings {
    /// Opens all; the arbiter, whose folder is made if need be, last.
    pub(super) fn open(options: &NodeOptions, store: &NodeStore) -> Result<Self, NodeError> {
        let host = |what| move |source| NodeError::Host { what, source };
        let keys = Keys::load(options)?;
        let (signals_in, signals_rx) = bounded(CTL_QUEUE);
        let signals = SignalWatch::start(signals_in).map_err(host("watching for signals"))?;
        let (channel_in, channel) = bounded(CHANNEL_QUEUE);
        let marks = match options.operation.marks {
            true => Marks::to(store.folder().join(MARKS_LOG)),
            false => Marks::default(),
        };
        let hub = ChannelHub::start(
            options.listen,
            options.peer,
            keys.credentials(),
            channel_in,
            marks.clone(),
        )?;
        let mut ports = Vec::new();
        let mut wires = Vec::new();
        for wire in &options.wires {
            let (frames_in, frames) = bounded(FRAME_QUEUE);
            ports.push((wire.device, Port::open(&wire.address, frames_in)?));
            wires.push(frames);
        }
        let (ctl_in, ctl) = bounded(CTL_QUEUE);
        let metrics = match options.operation.metrics {
            Some(listen) => {
                let calls = ctl_in.clone();
                let figures = move || figures(&calls);
                Some(MetricsServer::start(listen, Box::new(figures))?)
            }
            None => None,
        };
        let ctl_server = CtlServer::start(&store.ctl_path(), ctl_in)?;
        // One for each request, of which the protocol has a few at a time.
        let (arbiter_replies, arbiter_out) = unbounded();
        let console = Console::start(store.folder().join(CONSOLE_LOG))
            .map_err(host("starting the console's thread"))?;
        let cluster = options
            .tls
            .clone()
            .map(|files| (files, options.name.clone()));
        let arbiter_keys = ArbiterKeys {
            cluster,
            etcd: options.arbiter_tls.clone(),
        };
        let disks = NodeDisks::open(options, store)?;
        let backend = options.arbiter.open(&options.vm, &arbiter_keys)?;
        let arbiter = ArbiterWorker::start(backend, arbiter_replies.clone())
            .map_err(host("starting the arbiter's thread"))?;
        Ok(Self {
            inputs: Inputs {
                channel,
                arbiter: arbiter_out,
                ctl,
                wires,
                signals: signals_rx,
            },
            hub,
            marks,
            keys,
            arbiter,
            arbiter_replies,
            ports,
            disks,
            ctl_server,
            metrics,
            signals,
            console,
        })
    }
}

/// A scraper is answered, or told that the node doesn't answer, within this time: 2 s.
const FIGURES_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks the node's loop for its figures.
fn figures(calls: &Sender<CtlCall>) -> Result<String, String> {
    match ask(calls, CtlRequest::Metrics {}, FIGURES_TIMEOUT)? {
        Value::String(text) => Ok(text),
        _ => Err("the node has no figures".to_owned()),
    }
}

/// Who this node is, from now on.
pub(super) fn identity(options: &NodeOptions, store: &NodeStore) -> Result<Identity, NodeError> {
    let incarnation = random_u128().map_err(|source| NodeError::Host {
        what: "reading random numbers",
        source,
    })?;
    let shared = options.shared.iter().map(|disk| {
        let name = format!("contents of virtio slot {}", disk.device);
        let at = match disk.reads {
            Reads::Log => "at a server that both nodes reach",
            Reads::Own => "at a server that both nodes reach, reads = \"own\"",
        };
        (name, at.to_owned())
    });
    // The arbiter keeps the record under it: by another one a backup could never take over.
    let vm = ("name".to_owned(), options.vm.clone());
    let fields = options.machine.fields().into_iter().chain(shared);
    let fields = fields.chain([vm]);
    let identity = Identity {
        id: store.id(),
        name: options.name.clone(),
        peer_name: options.peer_name.clone(),
        incarnation: Incarnation(incarnation),
        machine: fields.map(|(name, value)| Field { name, value }).collect(),
    };
    identity.validate()?;
    Ok(identity)
}
