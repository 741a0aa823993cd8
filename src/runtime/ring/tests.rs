//! The ring against real sockets: what peers do to a server, and what cores do to each other.

use super::*;
use crate::runtime::executor::spawn_core;
use crate::runtime::lanes::{Lanes, Mesh};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

const LIMITS: RingLimits =
    RingLimits { entries: 256, recv_buffers: 64, recv_buffer_bytes: 4096, tick_ms: 5, idle_tick_ms: 100 };

/// Above this many unsent bytes the echo takes no more from a peer.
const ECHO_PENDING_MAX: usize = 256 << 10;

/// An echo on a ring; the owner's side of every rule.
struct Echo {
    ring: SocketRing,
    unsent: HashMap<SocketId, Peer>,
    moved: Vec<(OwnedFd, Vec<u8>)>,
}

#[derive(Default)]
struct Peer {
    bytes: Vec<u8>,
    ended: bool,
}

impl Echo {
    fn new(limits: RingLimits) -> Echo {
        Echo { ring: SocketRing::new(limits).unwrap(), unsent: HashMap::new(), moved: Vec::new() }
    }

    fn listen(&mut self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        self.ring.listen(listener).unwrap();
        address
    }

    fn adopt(&mut self, fd: OwnedFd, bytes: Vec<u8>) {
        let id = self.ring.adopt(fd).unwrap();
        self.unsent.insert(id, Peer { bytes, ended: false });
        self.pump(id);
    }

    /// Returns how many events there were.
    fn turn(&mut self) -> usize {
        let mut events = Vec::new();
        self.ring.turn(&mut events).unwrap();
        let count = events.len();
        for event in events {
            self.handle(event);
        }
        count
    }

    fn handle(&mut self, event: RingEvent) {
        match event {
            RingEvent::Accepted { socket, .. } => drop(self.unsent.insert(socket, Peer::default())),
            RingEvent::AcceptFailed { .. } | RingEvent::Tick => {}
            RingEvent::Received { socket, data } => {
                let peer = self.unsent.get_mut(&socket).unwrap();
                peer.bytes.extend_from_slice(self.ring.bytes(&data));
                self.ring.recycle(data);
                if peer.bytes.len() > ECHO_PENDING_MAX {
                    self.ring.pause_recv(socket).unwrap();
                }
                self.pump(socket);
            }
            RingEvent::Sent { socket, .. } => {
                self.ring.resume_recv(socket).unwrap();
                self.pump(socket);
            }
            RingEvent::Closed { socket, error: Some(_) } => self.close(socket),
            RingEvent::Closed { socket, error: None } => {
                self.unsent.get_mut(&socket).unwrap().ended = true;
                self.pump(socket);
            }
            RingEvent::Detached { socket, fd } => {
                let peer = self.unsent.remove(&socket).unwrap();
                self.moved.push((fd, peer.bytes));
            }
        }
    }

    fn pump(&mut self, id: SocketId) {
        if self.ring.sending(id) || self.leaving(id) {
            return;
        }
        let peer = self.unsent.get_mut(&id).unwrap();
        if !peer.bytes.is_empty() {
            self.ring.send(id, mem::take(&mut peer.bytes)).unwrap();
        } else if peer.ended {
            self.close(id);
        }
    }

    fn leaving(&self, id: SocketId) -> bool {
        self.ring.sockets.get(id).is_none_or(|socket| socket.phase != Phase::Open)
    }

    fn close(&mut self, id: SocketId) {
        self.unsent.remove(&id);
        self.ring.close(id).unwrap();
    }

    async fn rest(&mut self) {
        self.ring.prepare_sleep();
        self.ring.sleep().unwrap();
    }
}

/// An echo on an executor of its own.
struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    tid: u32,
    stats: mpsc::Receiver<RingStats>,
    core: JoinHandle<()>,
}

fn serve(limits: RingLimits) -> Server {
    let stop = Arc::new(AtomicBool::new(false));
    let (stopping, (ready, started), (count, stats)) = (stop.clone(), mpsc::channel(), mpsc::channel());
    let core = spawn_core("echo", None, move || async move {
        let mut echo = Echo::new(limits);
        let tid = std::fs::read_link("/proc/thread-self").unwrap();
        let tid = tid.file_name().unwrap().to_str().unwrap().parse::<u32>().unwrap();
        ready.send((echo.listen(), tid)).unwrap();
        while !stopping.load(Ordering::Relaxed) {
            if echo.turn() == 0 {
                echo.rest().await;
            }
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while echo.ring.stats().sockets > 0 && Instant::now() < deadline {
            echo.turn();
        }
        count.send(echo.ring.stats()).unwrap();
    })
    .unwrap();
    let (address, tid) = started.recv().unwrap();
    Server { address, stop, tid, stats, core }
}

impl Server {
    fn connect(&self) -> TcpStream {
        let peer = TcpStream::connect(self.address).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        peer
    }

    fn end(self) -> RingStats {
        self.stop.store(true, Ordering::Relaxed);
        let stats = self.stats.recv_timeout(Duration::from_secs(10)).unwrap();
        self.core.join().unwrap();
        assert_eq!((stats.sockets, stats.lent_buffers), (0, 0), "{stats:?}");
        stats
    }
}

fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|n| (n.wrapping_mul(31).wrapping_add(seed * 7919) >> 3) as u8).collect()
}

/// Writes `bytes` from another thread while reading them back.
fn round_trip(mut peer: TcpStream, bytes: Vec<u8>, shut: bool) {
    let mut writer = peer.try_clone().unwrap();
    let sent = bytes.clone();
    let writer = thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        if shut {
            writer.shutdown(Shutdown::Write).unwrap();
        }
    });
    let mut got = vec![0; bytes.len()];
    peer.read_exact(&mut got).unwrap();
    assert!(got == bytes);
    if shut {
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
    }
    writer.join().unwrap();
}

fn many_peers(limits: RingLimits, peers: usize, bytes: usize) -> RingStats {
    let server = serve(limits);
    let peers: Vec<_> = (0..peers)
        .map(|n| {
            let peer = server.connect();
            thread::spawn(move || round_trip(peer, pattern(n, bytes), n % 2 == 0))
        })
        .collect();
    peers.into_iter().for_each(|peer| peer.join().unwrap());
    server.end()
}

#[test]
fn many_peers_and_half_closed_ones_get_their_bytes_back() {
    let stats = many_peers(LIMITS, 60, 300_000);
    assert_eq!((stats.accepts, stats.recv_bytes, stats.sent_bytes), (60, 18_000_000, 18_000_000));
}

#[test]
fn tiny_queues_and_two_buffers_are_slower_but_lose_nothing() {
    let tiny = RingLimits { entries: 2, recv_buffers: 2, recv_buffer_bytes: 64, ..LIMITS };
    let stats = many_peers(tiny, 60, 20_000);
    assert!(stats.starved > 0, "{stats:?}");
}

#[test]
fn accepted_sockets_have_no_delay() {
    let mut echo = Echo::new(LIMITS);
    let _peer = TcpStream::connect(echo.listen()).unwrap();
    until(&mut echo, |echo| !echo.unsent.is_empty());
    let id = *echo.unsent.keys().next().unwrap();
    assert!(echo.ring.sockets.get(id).unwrap().stream.nodelay().unwrap());
    echo.ring.set_keepalive(id, 300).unwrap();
    assert_eq!(echo.ring.local_addr(id).unwrap().port(), _peer.peer_addr().unwrap().port());
    assert_eq!(echo.ring.peer_addr(id).unwrap(), _peer.local_addr().unwrap());
}

fn until(echo: &mut Echo, mut done: impl FnMut(&mut Echo) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done(echo) {
        assert!(Instant::now() < deadline, "{:?}", echo.ring.stats());
        echo.turn();
    }
}

#[test]
fn a_peer_that_never_reads_is_paused_and_closed_in_mid_send() {
    let mut echo = Echo::new(LIMITS);
    let mut peer = TcpStream::connect(echo.listen()).unwrap();
    peer.set_nonblocking(true).unwrap();
    let chunk = vec![7; 1 << 20];
    let (mut stuck_since, mut refused) = (Instant::now(), 0);
    until(&mut echo, |_| {
        refused += 1;
        if peer.write(&chunk).is_ok() {
            (stuck_since, refused) = (Instant::now(), 0);
        }
        refused > 30 && stuck_since.elapsed() > Duration::from_millis(300)
    });
    let id = *echo.unsent.keys().next().unwrap();
    assert!(echo.ring.sending(id));
    assert!(echo.unsent[&id].bytes.len() < ECHO_PENDING_MAX + 65 * 4096, "pausing bounds what is taken");
    echo.close(id);
    echo.ring.resume_recv(id).unwrap();
    until(&mut echo, |echo| echo.ring.stats().sockets == 0);
    assert_eq!(echo.ring.stats().lent_buffers, 0);
}

#[test]
fn sending_to_a_peer_that_has_gone_ends_in_one_error() {
    let mut ring = SocketRing::new(LIMITS).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let id = ring.adopt(OwnedFd::from(listener.accept().unwrap().0)).unwrap();
    drop(peer);
    let (mut ends, mut errors) = (0, 0);
    let deadline = Instant::now() + Duration::from_secs(1);
    while Instant::now() < deadline {
        if !ring.sending(id) {
            ring.send(id, vec![0; 1 << 16]).unwrap();
        }
        let mut events = Vec::new();
        ring.turn(&mut events).unwrap();
        for event in events {
            match event {
                RingEvent::Closed { error: None, .. } => ends += 1,
                RingEvent::Closed { error: Some(_), .. } => errors += 1,
                _ => {}
            }
        }
    }
    assert!(ends <= 1 && errors == 1, "{ends} {errors}");
    ring.close(id).unwrap();
}

#[test]
fn twenty_thousand_peers_leave_nothing_behind() {
    let before = open_sockets();
    let server = serve(LIMITS);
    let address = server.address;
    let clients: Vec<_> = (0..4)
        .map(|client| {
            thread::spawn(move || {
                for n in 0..5000 {
                    let mut peer = TcpStream::connect(address).unwrap();
                    peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                    peer.write_all(b"hay").unwrap();
                    if (n + client) % 3 > 0 {
                        peer.read_exact(&mut [0; 3]).unwrap();
                    }
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert!(open_sockets() < before + 2000, "slots and descriptors are used again");
    assert_eq!(server.end().accepts, 20_000);
}

fn open_sockets() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Run by `a_server_out_of_descriptors_heals` with a low limit on descriptors.
#[test]
#[ignore = "needs a low limit on descriptors"]
fn child_out_of_descriptors() {
    let mut echo = Echo::new(LIMITS);
    let address = echo.listen();
    let mut peers: Vec<TcpStream> = Vec::new();
    while let Ok(peer) = TcpStream::connect(address) {
        peers.push(peer);
        if open_sockets() > 40 {
            break;
        }
    }
    // Both ends are of this process: the accepts run out.
    until(&mut echo, |echo| echo.ring.stats().accept_errors > 0);
    let before = echo.ring.stats();
    let second = Instant::now();
    while second.elapsed() < Duration::from_secs(1) {
        echo.turn();
    }
    let errors = echo.ring.stats().accept_errors - before.accept_errors;
    assert!((1..=220).contains(&errors), "tried again at ticks only: {errors}");
    let wanted = peers.len() as u64;
    peers.truncate(2);
    until(&mut echo, |echo| echo.ring.stats().accepts == wanted && echo.ring.stats().sockets == 2);
    println!("healed");
}

#[test]
fn a_server_out_of_descriptors_heals() {
    let exe = std::env::current_exe().unwrap();
    let command =
        format!("ulimit -n 64; exec {} --ignored --nocapture child_out_of_descriptors", exe.display());
    let child = std::process::Command::new("sh").args(["-c", &command]).output().unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && text.contains("healed"),
        "{text}{}",
        String::from_utf8_lossy(&child.stderr)
    );
}

#[test]
fn stopping_a_listener_closes_it_and_spares_its_sockets() {
    let mut echo = Echo::new(LIMITS);
    let address = echo.listen();
    let peer = TcpStream::connect(address).unwrap();
    until(&mut echo, |echo| echo.unsent.len() == 1);
    echo.ring.stop_listening(ListenerId(0)).unwrap();
    until(&mut echo, |echo| echo.ring.listeners[0].is_none());
    assert!(TcpStream::connect(address).is_err());
    let peer = thread::spawn(move || round_trip(peer, pattern(1, 1000), true));
    until(&mut echo, |echo| echo.unsent.is_empty());
    peer.join().unwrap();
}

#[test]
fn a_ring_dropped_in_mid_traffic_leaks_nothing() {
    let mut echo = Echo::new(LIMITS);
    let address = echo.listen();
    let peers: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    until(&mut echo, |echo| echo.unsent.len() == 20);
    let ids: Vec<SocketId> = echo.unsent.keys().copied().collect();
    for &id in &ids {
        echo.ring.send(id, vec![1; 32 << 20]).unwrap();
    }
    echo.turn();
    let started = Instant::now();
    drop(echo);
    assert!(started.elapsed() < WIND_UP, "the kernel lets go in time, else memory is leaked");
    for mut peer in peers {
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let end = peer.read_to_end(&mut Vec::new());
        assert!(!matches!(end, Err(e) if e.kind() == io::ErrorKind::WouldBlock), "its descriptor is closed");
    }
}

/// Two echo cores hand every connection to and fro while its peer streams.
#[test]
fn connections_move_between_cores_without_losing_a_byte() {
    let mut mesh = Mesh::new::<(OwnedFd, Vec<u8>)>(2, 8);
    let (second, first) = (mesh.pop().unwrap(), mesh.pop().unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let moves = Arc::new(AtomicUsize::new(0));
    let (address_out, address_in) = mpsc::channel();
    let (first_bell, second_bell) = (mpsc::channel(), mpsc::channel());
    let start = |lanes: Lanes<(OwnedFd, Vec<u8>)>,
                 listens: Option<mpsc::Sender<SocketAddr>>,
                 mine: mpsc::Sender<Doorbell>,
                 theirs: mpsc::Receiver<Doorbell>| {
        let (stop, moves) = (stop.clone(), moves.clone());
        spawn_core("mover", None, move || async move {
            let mut echo = Echo::new(LIMITS);
            mine.send(echo.ring.doorbell()).unwrap();
            let peer_bell = theirs.recv().unwrap();
            if let Some(out) = listens {
                out.send(echo.listen()).unwrap();
            }
            move_about(echo, lanes, peer_bell, &stop, &moves).await;
        })
        .unwrap()
    };
    let cores = [
        start(first, Some(address_out), first_bell.0, second_bell.1),
        start(second, None, second_bell.0, first_bell.1),
    ];
    let address = address_in.recv().unwrap();
    let peers: Vec<_> = (0..16)
        .map(|n| {
            let peer = TcpStream::connect(address).unwrap();
            peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            thread::spawn(move || round_trip(peer, pattern(n, 4_000_000), true))
        })
        .collect();
    peers.into_iter().for_each(|peer| peer.join().unwrap());
    stop.store(true, Ordering::Relaxed);
    cores.into_iter().for_each(|core| core.join().unwrap());
    assert!(moves.load(Ordering::Relaxed) > 200, "{moves:?}");
}

async fn move_about(
    mut echo: Echo,
    mut lanes: Lanes<(OwnedFd, Vec<u8>)>,
    peer_bell: Doorbell,
    stop: &AtomicBool,
    moves: &AtomicUsize,
) {
    let other = 1 - lanes.core();
    let mut turns = 0u32;
    while !stop.load(Ordering::Relaxed) {
        let mut work = echo.turn();
        turns += 1;
        if turns.is_multiple_of(8) {
            for id in echo.unsent.keys().copied().collect::<Vec<_>>() {
                if !echo.unsent[&id].ended {
                    echo.ring.detach(id).unwrap();
                }
            }
        }
        for moved in mem::take(&mut echo.moved) {
            moves.fetch_add(1, Ordering::Relaxed);
            lanes.send(other, moved);
        }
        lanes.flush(|_| peer_bell.ring());
        let mut arrived = Vec::new();
        work += lanes.receive(16, |_, moved| arrived.push(moved));
        for (fd, bytes) in arrived {
            echo.adopt(fd, bytes);
        }
        if work > 0 || lanes.any_congested() {
            continue;
        }
        echo.ring.prepare_sleep();
        if lanes.waiting() {
            echo.ring.cancel_sleep();
        } else {
            echo.ring.sleep().unwrap();
        }
    }
}

#[test]
fn an_idle_core_costs_next_to_nothing() {
    let server = serve(LIMITS);
    let _peers: Vec<TcpStream> = (0..10).map(|_| server.connect()).collect();
    thread::sleep(Duration::from_millis(500));
    let before = cpu_ticks(server.tid);
    thread::sleep(Duration::from_secs(2));
    // 100 ticks to the second: 2 are one per cent of two seconds.
    assert!(cpu_ticks(server.tid) - before <= 2);
    drop(_peers);
    server.end();
}

fn cpu_ticks(tid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let field = |n: usize| after_name.split_whitespace().nth(n - 3).unwrap().parse::<u64>().unwrap();
    field(14) + field(15)
}

/// Two cores throw a ball to and fro, sleeping as soon as they have nothing: a missed wake would cost a tick
/// of ten seconds.
#[test]
fn no_wake_is_missed_in_a_hundred_thousand_round_trips() {
    let lazy = RingLimits { tick_ms: 10_000, idle_tick_ms: 10_000, ..LIMITS };
    let mut mesh = Mesh::new::<u32>(2, 4);
    let (second, first) = (mesh.pop().unwrap(), mesh.pop().unwrap());
    let (first_bell, second_bell) = (mpsc::channel(), mpsc::channel());
    let start =
        |lanes: Lanes<u32>, serves: bool, mine: mpsc::Sender<Doorbell>, theirs: mpsc::Receiver<Doorbell>| {
            spawn_core("player", None, move || async move {
                let ring = SocketRing::new(lazy).unwrap();
                mine.send(ring.doorbell()).unwrap();
                let bell = theirs.recv().unwrap();
                play(ring, lanes, bell, serves).await;
            })
            .unwrap()
        };
    let cores =
        [start(first, true, first_bell.0, second_bell.1), start(second, false, second_bell.0, first_bell.1)];
    cores.into_iter().for_each(|core| core.join().unwrap());
}

const ROUND_TRIPS: u32 = 100_000;

async fn play(mut ring: SocketRing, mut lanes: Lanes<u32>, bell: Doorbell, serves: bool) {
    let other = 1 - lanes.core();
    let (mut seen, mut events) = (0, Vec::new());
    let mut longest = Duration::ZERO;
    if serves {
        lanes.send(other, 1);
    }
    while seen < ROUND_TRIPS {
        ring.turn(&mut events).unwrap();
        events.clear();
        let mut balls = Vec::new();
        lanes.receive(4, |_, ball| balls.push(ball));
        for ball in balls {
            assert_eq!(ball, seen + 1);
            seen = ball;
            lanes.send(other, if serves { ball + 1 } else { ball });
        }
        lanes.flush(|_| bell.ring());
        ring.prepare_sleep();
        if lanes.waiting() {
            ring.cancel_sleep();
            continue;
        }
        if seen < ROUND_TRIPS {
            let asleep = Instant::now();
            ring.sleep().unwrap();
            longest = longest.max(asleep.elapsed());
        }
    }
    assert!(longest < Duration::from_secs(5), "slept {longest:?}");
    println!("sleeps {} longest {longest:?}", ring.stats().sleeps);
}
