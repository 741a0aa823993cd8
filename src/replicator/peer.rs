//! Another node, spoken to as a client speaks to it: commands that are answered with one line or a short text.
//!
//! Must not know what is asked of it.

use super::hub::Hub;
use crate::replica::wire::NodeId;
use crate::resp::encode;
use std::io;
use std::net::IpAddr;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long making a connection, and logging in, may take.
pub const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// Longest line, and longest text, that is waited for.
const LINE_MAX_BYTES: u64 = 1024;
const TEXT_MAX_BYTES: usize = 64 << 10;

pub struct PeerNode {
    stream: BufReader<TcpStream>,
}

/// What it has answered: a text or a number, or an error.
pub type Line = Result<String, String>;

impl PeerNode {
    /// Connects, and logs in with what is configured for primaries.
    pub async fn connect(hub: &Hub, host: &str, port: u16) -> io::Result<PeerNode> {
        timeout(CONNECT_WAIT, PeerNode::log_in(hub, host, port)).await?
    }

    async fn log_in(hub: &Hub, host: &str, port: u16) -> io::Result<PeerNode> {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let mut peer = PeerNode { stream: BufReader::new(stream) };
        let config = hub.config();
        if config.masterauth.is_set() {
            let (user, password) = (config.masteruser.as_bytes(), config.masterauth.as_bytes());
            let words: &[&[u8]] =
                if user.is_empty() { &[b"AUTH", password] } else { &[b"AUTH", user, password] };
            let said = peer.ask(words).await?;
            said.map_err(|why| io::Error::other(format!("AUTH is answered: {why}")))?;
        }
        Ok(peer)
    }

    /// This node's address, as the other one sees it.
    pub fn own_ip(&self) -> io::Result<IpAddr> {
        Ok(self.stream.get_ref().local_addr()?.ip())
    }

    /// Its name: what it calls itself as a follower.
    pub async fn node_id(&mut self) -> io::Result<NodeId> {
        let told = self.ask_within(CONNECT_WAIT, &["INFO", "server"]).await?.map_err(io::Error::other)?;
        let id = told.lines().find_map(|line| line.strip_prefix("run_id:"));
        let id = id.and_then(|id| NodeId::try_from(id.trim().as_bytes()).ok());
        id.ok_or_else(|| io::Error::other("INFO does not say who it is"))
    }

    /// As `ask`, for so long.
    pub async fn ask_within(&mut self, wait: Duration, words: &[impl AsRef<[u8]>]) -> io::Result<Line> {
        timeout(wait, self.ask(words)).await?
    }

    /// Sends a command and waits for what it answers, for as long as it takes.
    pub async fn ask(&mut self, words: &[impl AsRef<[u8]>]) -> io::Result<Line> {
        let mut command = Vec::new();
        encode::array_header(words.len(), &mut command);
        words.iter().for_each(|word| encode::bulk(word.as_ref(), &mut command));
        self.stream.write_all(&command).await?;
        let mut line = Vec::new();
        (&mut self.stream).take(LINE_MAX_BYTES).read_until(b'\n', &mut line).await?;
        let line = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
        match line.bytes().next() {
            Some(b'+' | b':') => Ok(Ok(line[1..].to_owned())),
            Some(b'$') => self.bulk(&line[1..]).await.map(Ok),
            Some(b'-') => Ok(Err(line[1..].to_owned())),
            Some(_) => Err(io::Error::other(format!("it answers: {line}"))),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    async fn bulk(&mut self, length: &str) -> io::Result<String> {
        let length = length.parse().ok().filter(|length| *length <= TEXT_MAX_BYTES);
        let length = length.ok_or_else(|| io::Error::other("it answers more than was asked for"))?;
        let mut text = vec![0; length + 2];
        self.stream.read_exact(&mut text).await?;
        text.truncate(length);
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// The socket, and what has been read from it behind the last line.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        let rest = self.stream.buffer().to_vec();
        (self.stream.into_inner(), rest)
    }
}
