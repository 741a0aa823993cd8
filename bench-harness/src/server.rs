//! A server's address, and what is asked of it before the load: login, database, who it is, which
//! nodes its cluster has. Knows nothing of loads.

use crate::options::{Load, Target};
use crate::reply::{self, Kind};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::time::Duration;

/// A reply to a set-up command may take this long.
const SETUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a server could not be used.
#[derive(Debug)]
pub struct Unusable(pub String);

impl fmt::Display for Unusable {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.0)
    }
}

/// One node and the cluster slots it serves.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it listens.
    pub address: SocketAddr,
    /// Inclusive ranges of its slots; empty when keys are not routed.
    pub slots: Vec<RangeInclusive<u16>>,
}

/// A connected socket that is ready for the load, still blocking.
///
/// # Errors
/// When nobody listens there, or the server refuses what it is told.
pub fn connect(address: SocketAddr, password: Option<&str>, load: &Load) -> Result<TcpStream, Unusable> {
    let mut stream = TcpStream::connect_timeout(&address, SETUP_TIMEOUT)
        .map_err(|error| Unusable(format!("no connection to {address}: {error}")))?;
    let setup = || -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SETUP_TIMEOUT))
    };
    setup().map_err(|error| Unusable(format!("socket to {address}: {error}")))?;
    if let Some(password) = password {
        ask(&mut stream, &["AUTH", password])?;
    }
    if load.resp3 {
        ask(&mut stream, &["HELLO", "3"])?;
    }
    if load.db != 0 {
        ask(&mut stream, &["SELECT", &load.db.to_string()])?;
    }
    Ok(stream)
}

/// A command's reply, as bytes.
///
/// # Errors
/// When the server answers with an error, with no RESP, or not at all.
pub fn ask(stream: &mut TcpStream, words: &[&str]) -> Result<Vec<u8>, Unusable> {
    let failed = |why: &dyn fmt::Display| Unusable(format!("{} is answered with: {why}", words[0]));
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(request.as_bytes()).map_err(|error| failed(&error))?;
    let (mut bytes, mut chunk) = (Vec::new(), [0; 16 << 10]);
    loop {
        match reply::first(&bytes) {
            Ok(Some(reply)) if reply.kind == Kind::Error => {
                return Err(failed(&String::from_utf8_lossy(&bytes).trim_end()));
            }
            Ok(Some(_)) => return Ok(bytes),
            Ok(None) => {}
            Err(_) => return Err(failed(&"bytes that are not RESP")),
        }
        match stream.read(&mut chunk) {
            Ok(0) => return Err(failed(&"the end of the connection")),
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
            Err(error) => return Err(failed(&error)),
        }
    }
}

/// The nodes to connect to: the target itself, or those of its cluster.
///
/// # Errors
/// When the target cannot be reached or has no cluster.
pub fn nodes(target: &Target, load: &Load) -> Result<Vec<Node>, Unusable> {
    let address = (target.host.as_str(), target.port)
        .to_socket_addrs()
        .map_err(|error| Unusable(format!("{}: {error}", target.host)))?
        .next()
        .ok_or_else(|| Unusable(format!("{} has no address", target.host)))?;
    if !load.cluster {
        return Ok(vec![Node { address, slots: Vec::new() }]);
    }
    let mut stream = connect(address, target.password.as_deref(), load)?;
    let reply = ask(&mut stream, &["CLUSTER", "SLOTS"])?;
    cluster_nodes(&reply, address).ok_or_else(|| Unusable(format!("{address} names no nodes of a cluster")))
}

/// CLUSTER SLOTS' reply as nodes: each range's first node, which is the primary.
fn cluster_nodes(reply: &[u8], asked: SocketAddr) -> Option<Vec<Node>> {
    let mut nodes: Vec<Node> = Vec::new();
    let all = reply::first(reply).ok()??;
    let mut at = all.content;
    while at < all.length {
        let range = reply::first(&reply[at..]).ok()??;
        let mut parts = Vec::new();
        reply::flatten(&reply[at..at + range.length], &mut parts);
        let text = |n: usize| parts.get(n).and_then(|part| std::str::from_utf8(part).ok());
        let (low, high) = (text(0)?.parse().ok()?, text(1)?.parse().ok()?);
        // An empty name means the host that was asked.
        let host =
            text(2).filter(|host| !host.is_empty()).map_or_else(|| asked.ip().to_string(), str::to_owned);
        let address = (host.as_str(), text(3)?.parse().ok()?).to_socket_addrs().ok()?.next()?;
        match nodes.iter_mut().find(|node| node.address == address) {
            Some(node) => node.slots.push(low..=high),
            None => nodes.push(Node { address, slots: vec![low..=high] }),
        }
        at += range.length;
    }
    (!nodes.is_empty()).then_some(nodes)
}

/// The process that serves there, as it says itself; `None` when it does not say.
pub fn process_id(target: &Target, load: &Load) -> Option<u32> {
    let address = (target.host.as_str(), target.port).to_socket_addrs().ok()?.next()?;
    if !address.ip().is_loopback() {
        return None;
    }
    let mut stream = connect(address, target.password.as_deref(), load).ok()?;
    let info = ask(&mut stream, &["INFO", "server"]).ok()?;
    let info = String::from_utf8_lossy(&info).into_owned();
    info.lines().find_map(|line| line.strip_prefix("process_id:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_gets_all_its_ranges_and_an_empty_name_is_the_host_that_was_asked() {
        let reply = b"*3\r\n*3\r\n:0\r\n:5\r\n*3\r\n$9\r\n127.0.0.1\r\n:7001\r\n$2\r\nid\r\n\
            *3\r\n:6\r\n:9\r\n*3\r\n$0\r\n\r\n:7002\r\n$2\r\nid\r\n*3\r\n:10\r\n:11\r\n*3\r\n$9\r\n127.0.0.1\r\n:7001\r\n$2\r\nid\r\n";
        let nodes = cluster_nodes(reply, "127.0.0.1:7000".parse().unwrap()).unwrap();
        assert_eq!(nodes.len(), 2);
        assert_eq!((nodes[0].address.port(), nodes[0].slots.clone()), (7001, vec![0..=5, 10..=11]));
        assert_eq!(nodes[1].address, "127.0.0.1:7002".parse().unwrap());
        assert!(cluster_nodes(b"*0\r\n", "127.0.0.1:1".parse().unwrap()).is_none());
    }
}
