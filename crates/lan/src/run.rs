//! The event loop: one thread, all sockets, no waiting but in the poll.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use smoltcp::time::Instant as StackInstant;

use crate::config::{Forward, LanConfig};
use crate::ethernet::Header;
use crate::forward::{Connection, Fate};
use crate::gateway::Gateway;
use crate::listen::PortListener;
use crate::port::{Port, PortEnd};
use crate::report::{BoundAddrs, LanError, LanEvent, LanStats, Log};
use crate::stop::StopSignal;
use crate::switch::{Destination, PortId, Switch};
use crate::wire::{Put, Way, Wires};

/// Most nodes connected at once.
const MAX_PORTS: usize = 64;

/// Most forwarded connections at once; more wait in the kernel's backlog. With
/// the ports and listeners this stays below the usual limit of 1024 descriptors.
const MAX_CONNECTIONS: usize = 768;

/// Connections accepted in a row before the others have their turn.
const ACCEPTS_PER_TURN: usize = 64;

/// Exchanges between clients and the stack in one turn of the loop.
const EXCHANGES_PER_TURN: usize = 8;

/// Pause before accepting again after the system refused (no descriptors left).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

const PORT_LISTENER: Token = Token(0);
const STOP: Token = Token(1);
const FIRST_FORWARD: usize = 2;

/// Runs the switch until `stop`, with its log on standard error, one line each.
///
/// `on_ready` is called once everything listens.
pub fn run(
    config: LanConfig,
    stop: StopSignal,
    on_ready: impl FnOnce(&BoundAddrs),
) -> Result<LanStats, LanError> {
    run_logged(config, stop, on_ready, &mut |event| {
        // The connections outlive whoever reads this.
        let _ = writeln!(io::stderr().lock(), "twinvm lan: {event}");
    })
}

/// Runs the switch until `stop` and gives each event to `log`.
pub fn run_logged(
    config: LanConfig,
    stop: StopSignal,
    on_ready: impl FnOnce(&BoundAddrs),
    log: &mut dyn FnMut(&LanEvent),
) -> Result<LanStats, LanError> {
    config.check()?;
    let mut lan = Lan::start(config, stop, log)?;
    on_ready(&lan.bound);
    lan.serve()?;
    Ok(lan.finish())
}

struct ForwardListener {
    forward: Forward,
    listener: TcpListener,
    /// There may be connections to accept.
    pending: bool,
}

struct Lan<'a> {
    poll: Poll,
    log: Log<'a>,
    /// Kept open; any byte, or its end, stops the switch.
    _stop: mio::net::UnixStream,
    stopped: bool,
    bound: BoundAddrs,
    port_listener: PortListener,
    ports_pending: bool,
    forwards: Vec<ForwardListener>,
    ports: BTreeMap<PortId, Port>,
    connections: BTreeMap<usize, Connection>,
    next_token: usize,
    accept_again: Option<Instant>,
    switch: Switch,
    wires: Wires,
    gateway: Gateway,
    started: Instant,
    stats: LanStats,
}

impl<'a> Lan<'a> {
    fn start(
        config: LanConfig,
        stop: StopSignal,
        log: &'a mut dyn FnMut(&LanEvent),
    ) -> Result<Lan<'a>, LanError> {
        let poll = Poll::new()?;
        let registry = poll.registry();
        let mut stop = mio::net::UnixStream::from_std(stop.0);
        registry.register(&mut stop, STOP, Interest::READABLE)?;

        let mut forwards = Vec::new();
        for (index, forward) in config.forwards.iter().enumerate() {
            let (mut listener, forward) = bind_forward(forward)?;
            registry.register(
                &mut listener,
                Token(FIRST_FORWARD + index),
                Interest::READABLE,
            )?;
            forwards.push(ForwardListener {
                forward,
                listener,
                pending: true,
            });
        }
        let mut port_listener = PortListener::bind(&config.listen)?;
        registry.register(
            &mut port_listener.listener,
            PORT_LISTENER,
            Interest::READABLE,
        )?;

        let mut seed = [0; 8];
        rustix::rand::getrandom(&mut seed[..], rustix::rand::GetRandomFlags::empty())
            .map_err(io::Error::from)?;
        let guests = config.forwards.iter().map(|forward| *forward.guest.ip());
        let gateway = Gateway::new(
            config.gateway,
            &config.dhcp,
            guests,
            u64::from_ne_bytes(seed),
            StackInstant::ZERO,
        );
        Ok(Lan {
            bound: BoundAddrs {
                listen: config.listen,
                forwards: forwards.iter().map(|f| f.forward.clone()).collect(),
            },
            poll,
            log: Log::new(log),
            _stop: stop,
            stopped: false,
            port_listener,
            ports_pending: true,
            next_token: FIRST_FORWARD + forwards.len(),
            forwards,
            ports: BTreeMap::new(),
            connections: BTreeMap::new(),
            accept_again: None,
            switch: Switch::new(config.gateway.mac),
            wires: Wires::new(config.impairment, u64::from_ne_bytes(seed)),
            gateway,
            started: Instant::now(),
            stats: LanStats::default(),
        })
    }

    fn serve(&mut self) -> Result<(), LanError> {
        let mut events = Events::with_capacity(256);
        let mut timeout = Some(Duration::ZERO);
        while !self.stopped {
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            self.stats.turns += 1;
            for event in &events {
                self.note(event);
            }
            self.accept_ports()?;
            self.accept_clients()?;
            self.read_ports();
            self.read_wires();
            let settled = self.exchange();
            self.flush_ports();
            timeout = self.timeout(settled);
        }
        Ok(())
    }

    fn note(&mut self, event: &mio::event::Event) {
        match event.token() {
            STOP => self.stopped = true,
            PORT_LISTENER => self.ports_pending = true,
            Token(token) => {
                if let Some(port) = self.ports.get_mut(&PortId(token)) {
                    port.host_event(event);
                } else if let Some(connection) = self.connections.get_mut(&token) {
                    connection.host_event(event);
                } else if let Some(forward) = self.forwards.get_mut(token - FIRST_FORWARD) {
                    forward.pending = true;
                }
            }
        }
    }

    /// How long nothing has to be done unless something happens.
    fn timeout(&mut self, settled: bool) -> Option<Duration> {
        let now = Instant::now();
        let more = !settled
            || self.ports.values().any(Port::is_readable)
            || (self.ports_pending && self.accept_again.is_none())
            || (self.may_accept() && self.forwards.iter().any(|forward| forward.pending));
        if more {
            return Some(Duration::ZERO);
        }
        let stack_now = self.stack_now();
        let stack = self.gateway.poll_delay(stack_now).map(Duration::from);
        let deadline = self.connections.values().filter_map(|c| c.deadline).min();
        [deadline, self.accept_again, self.wires.next()]
            .into_iter()
            .flatten()
            .map(|at| at.saturating_duration_since(now))
            .chain(stack)
            .min()
    }

    fn stack_now(&self) -> StackInstant {
        let micros = self.started.elapsed().as_micros();
        StackInstant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    fn accept_ports(&mut self) -> Result<(), LanError> {
        self.accept_again = self.accept_again.filter(|&at| Instant::now() < at);
        for _ in 0..MAX_PORTS {
            if !self.ports_pending || self.accept_again.is_some() {
                return Ok(());
            }
            match self.port_listener.listener.accept() {
                Ok(_) if self.ports.len() == MAX_PORTS => self.log.line(&LanEvent::PortRefused),
                Ok((mut stream, _)) => {
                    let token = self.take_token();
                    self.poll.registry().register(
                        &mut stream,
                        Token(token),
                        Interest::READABLE | Interest::WRITABLE,
                    )?;
                    self.ports.insert(PortId(token), Port::new(stream));
                    self.stats.ports += 1;
                    self.log.line(&LanEvent::PortJoined { port: token });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.ports_pending = false;
                }
                Err(error) if is_clients_fault(&error) => {}
                // Out of descriptors or memory: later, perhaps.
                Err(_) => self.accept_again = Some(Instant::now() + ACCEPT_RETRY),
            }
        }
        Ok(())
    }

    fn may_accept(&self) -> bool {
        self.connections.len() < MAX_CONNECTIONS && self.accept_again.is_none()
    }

    fn accept_clients(&mut self) -> Result<(), LanError> {
        for index in 0..self.forwards.len() {
            for _ in 0..ACCEPTS_PER_TURN {
                if !self.forwards[index].pending || !self.may_accept() {
                    break;
                }
                match self.forwards[index].listener.accept() {
                    Ok((stream, _)) => self.client_came(index, stream)?,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.forwards[index].pending = false;
                    }
                    Err(error) if is_clients_fault(&error) => {}
                    Err(error) => {
                        self.accept_again = Some(Instant::now() + ACCEPT_RETRY);
                        self.log.line(&LanEvent::AcceptFailed {
                            listen: self.forwards[index].forward.listen,
                            reason: error.to_string(),
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// Begins the guest's half of a client's connection. Next hop:
    /// [`Connection::pump`].
    fn client_came(&mut self, index: usize, mut stream: TcpStream) -> Result<(), LanError> {
        let _ = stream.set_nodelay(true);
        let Some(socket) = self.gateway.connect(self.forwards[index].forward.guest) else {
            return Ok(());
        };
        let token = self.take_token();
        self.poll.registry().register(
            &mut stream,
            Token(token),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        self.stats.connections += 1;
        let connection = Connection::new(stream, socket, Instant::now());
        self.connections.insert(token, connection);
        Ok(())
    }

    fn take_token(&mut self) -> usize {
        self.next_token += 1;
        self.next_token - 1
    }

    /// Reads each port once and switches its frames. Next hop: another port's
    /// queue, or [`Gateway::input`].
    fn read_ports(&mut self) {
        let readable: Vec<PortId> = self
            .ports
            .iter()
            .filter(|(_, port)| port.is_readable())
            .map(|(&id, _)| id)
            .collect();
        for id in readable {
            // Out of the map, so that its frames can go to the others.
            let Some(mut port) = self.ports.remove(&id) else {
                continue;
            };
            let now = Instant::now();
            let result = port.read(|frame| {
                self.stats.frames_in += 1;
                match self.wires.put(now, Way::From(id), frame) {
                    Put::Through => self.switch_frame(id, frame),
                    Put::UnderWay => {}
                    Put::Lost => self.stats.frames_lost += 1,
                }
            });
            self.ports.insert(id, port);
            if let Err(end) = result {
                self.port_ended(id, &end);
            }
            // What the gateway got waits for the stack no longer than one port's turn.
            self.run_gateway();
        }
    }

    /// Takes what has come to the end of its wire. Frames of a node that has left are lost, like
    /// those to it.
    fn read_wires(&mut self) {
        let now = Instant::now();
        while let Some((way, frame)) = self.wires.arrived(now) {
            match way {
                Way::From(id) => {
                    let Some(port) = self.ports.remove(&id) else {
                        continue;
                    };
                    self.switch_frame(id, &frame);
                    self.ports.insert(id, port);
                }
                Way::To(id) => {
                    if let Some(port) = self.ports.get_mut(&id) {
                        send(&mut self.stats, port, &frame);
                    }
                }
            }
        }
    }

    fn switch_frame(&mut self, from: PortId, frame: &[u8]) {
        let Some(header) = Header::parse(frame) else {
            return;
        };
        let verdict = self.switch.frame_from(from, &header);
        if let Some(mac) = verdict.arrived {
            self.stats.stations_arrived += 1;
            if verdict.is_news {
                let port = from.0;
                self.log.line(&LanEvent::StationArrived { mac, port });
            }
            self.gateway.station_arrived(mac);
        }
        match verdict.destination {
            Destination::Gateway => self.gateway.input(frame),
            Destination::Flood { to_gateway: true } => {
                self.gateway.input(frame);
                self.deliver(verdict.destination, frame);
            }
            other => self.deliver(other, frame),
        }
    }

    /// Puts a frame into the queues of the ports it goes to. A port that is being
    /// read is out of the map, so no frame comes back to its sender.
    fn deliver(&mut self, destination: Destination, frame: &[u8]) {
        let (stats, wires) = (&mut self.stats, &mut self.wires);
        let mut put =
            |id: PortId, port: &mut Port| match wires.put(Instant::now(), Way::To(id), frame) {
                Put::Through => send(stats, port, frame),
                Put::UnderWay => {}
                Put::Lost => stats.frames_lost += 1,
            };
        match destination {
            Destination::Port(id) => {
                if let Some(port) = self.ports.get_mut(&id) {
                    put(id, port);
                }
            }
            Destination::Flood { .. } => {
                for (&id, port) in &mut self.ports {
                    put(id, port);
                }
            }
            Destination::Gateway | Destination::Nowhere => {}
        }
    }

    /// Runs the stack and switches what it sends.
    fn run_gateway(&mut self) {
        let now = self.stack_now();
        for _ in 0..EXCHANGES_PER_TURN {
            let again = self.gateway.poll(now);
            let mut sent = false;
            while let Some(frame) = self.gateway.output() {
                sent = true;
                if let Some(header) = Header::parse(&frame) {
                    let destination = if header.dst.is_unicast() {
                        self.switch.route(header.dst)
                    } else {
                        Destination::Flood { to_gateway: false }
                    };
                    self.deliver(destination, &frame);
                }
            }
            if !again && !sent {
                break;
            }
        }
    }

    /// Exchanges bytes between clients and the stack until nothing moves. False if
    /// this turn's share ended first.
    fn exchange(&mut self) -> bool {
        for _ in 0..EXCHANGES_PER_TURN {
            self.run_gateway();
            if !self.pump_all() {
                return true;
            }
        }
        false
    }

    fn pump_all(&mut self) -> bool {
        let now = Instant::now();
        let mut moved = false;
        let mut ended = Vec::new();
        for (&token, connection) in &mut self.connections {
            let socket = self.gateway.socket(connection.socket);
            match connection.pump(socket, now) {
                Fate::Open { moved: some } => moved |= some,
                fate => ended.push((token, fate)),
            }
        }
        if !ended.is_empty() {
            // Resets to guests leave before their sockets go.
            self.run_gateway();
            moved = true;
        }
        for (token, fate) in ended {
            if let Some(connection) = self.connections.remove(&token) {
                self.stats.connections_reset_by_guest += u64::from(fate == Fate::GuestGone);
                self.end_connection(connection, fate == Fate::GuestGone);
            }
        }
        moved
    }

    fn end_connection(&mut self, mut connection: Connection, reset: bool) {
        self.gateway.remove(connection.socket);
        let _ = self.poll.registry().deregister(connection.stream());
        if reset {
            connection.reset_client();
        }
    }

    fn flush_ports(&mut self) {
        let mut ended = Vec::new();
        for (&id, port) in &mut self.ports {
            if let Err(end) = port.flush() {
                ended.push((id, end));
            }
        }
        for (id, end) in ended {
            self.port_ended(id, &end);
        }
    }

    /// Forgets a port. What was sent to its stations may be lost; the switch
    /// floods frames for them now, so another port may already have them.
    fn port_ended(&mut self, id: PortId, end: &PortEnd) {
        if let Some(mut port) = self.ports.remove(&id) {
            let _ = self.poll.registry().deregister(port.stream());
        }
        self.stats.ports_broken += u64::from(matches!(end, PortEnd::Broken(_)));
        self.log.line(&LanEvent::PortLeft {
            port: id.0,
            reason: end.to_string(),
        });
        for mac in self.switch.port_left(id) {
            self.gateway.station_arrived(mac);
        }
    }

    /// Resets what is still open, on both sides.
    fn finish(mut self) -> LanStats {
        for connection in self.connections.values() {
            self.gateway.socket(connection.socket).abort();
        }
        self.run_gateway();
        for connection in std::mem::take(&mut self.connections).into_values() {
            self.end_connection(connection, true);
        }
        self.flush_ports();
        self.stats.frames_repeated = self.gateway.repeated_frames();
        self.stats
    }
}

/// Puts a frame into a port's queue.
fn send(stats: &mut LanStats, port: &mut Port, frame: &[u8]) {
    if port.send(frame) {
        stats.frames_out += 1;
        let queued = port.queued_bytes() as u64;
        stats.peak_queue_bytes = stats.peak_queue_bytes.max(queued);
    } else {
        stats.frames_dropped += 1;
    }
}

/// The client gave up before it was accepted, or a signal came: try the next one.
fn is_clients_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

fn bind_forward(forward: &Forward) -> Result<(TcpListener, Forward), LanError> {
    let bound = TcpListener::bind(forward.listen).and_then(|listener| {
        let listen = listener.local_addr()?;
        Ok((listener, listen))
    });
    match bound {
        Ok((listener, listen)) => Ok((
            listener,
            Forward {
                listen,
                guest: forward.guest,
            },
        )),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Err(LanError::ForwardInUse(forward.clone()))
        }
        Err(source) => Err(LanError::Forward {
            forward: forward.clone(),
            source,
        }),
    }
}
