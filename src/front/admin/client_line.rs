//! One connection as CLIENT LIST shows it, and whether a filter means it.
//! Pure: the serving loop that owns the connections calls both.

use super::connection::{USER, protocol_number};
use crate::front::session::Session;
use crate::shard::mesh::ClientFilter;

/// What only the serving loop knows of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras {
    /// Received and not yet run.
    pub query_bytes: usize,
    /// Room left behind it.
    pub query_free_bytes: usize,
    /// Replies not yet sent.
    pub output_bytes: usize,
    /// Commands whose replies are awaited.
    pub pending_replies: usize,
    /// Nothing is read from it for now.
    pub paused: bool,
    /// Its command waits for a key.
    pub waits: bool,
    /// It closes once its replies are sent.
    pub closing: bool,
}

/// A line in Redis 7.2's order of fields, with its line end. Arguments stay in the query buffer and replies
/// have one buffer that grows, so the fields for Redis's own fixed ones are 0.
pub fn client_line(session: &Session, extras: &Extras, now_ms: u64) -> String {
    format!(
        "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={} db={} sub=0 psub=0 ssub=0 multi=-1 \
         qbuf={} qbuf-free={} argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl={} oll={} omem={} tot-mem={} \
         events={} cmd={} user={} redir=-1 resp={} lib-name={} lib-ver={}\n",
        session.id,
        session.addr,
        session.laddr,
        session.fd,
        String::from_utf8_lossy(&session.name),
        age_seconds(session, now_ms),
        now_ms.saturating_sub(session.last_command_ms) / 1000,
        flags(session, extras),
        session.table.0,
        extras.query_bytes,
        extras.query_free_bytes,
        extras.output_bytes,
        extras.pending_replies,
        extras.output_bytes,
        extras.query_bytes + extras.query_free_bytes + extras.output_bytes,
        events(extras),
        if session.last_command.is_empty() { "NULL" } else { session.last_command },
        String::from_utf8_lossy(USER),
        protocol_number(session.protocol),
        String::from_utf8_lossy(&session.lib_name),
        String::from_utf8_lossy(&session.lib_ver),
    )
}

fn age_seconds(session: &Session, now_ms: u64) -> u64 {
    now_ms.saturating_sub(session.connected_ms) / 1000
}

/// What the loop waits for on the socket.
fn events(extras: &Extras) -> &'static str {
    match (extras.paused, extras.output_bytes > 0) {
        (false, false) => "r",
        (false, true) => "rw",
        (true, true) => "w",
        (true, false) => "",
    }
}

/// Redis's letters, in its order; `N` for none.
fn flags(session: &Session, extras: &Extras) -> String {
    let letters = [
        (session.monitoring, 'O'),
        (extras.waits, 'b'),
        (extras.closing, 'c'),
        (session.readonly, 'r'),
        (session.no_evict, 'e'),
        (session.no_touch, 'T'),
    ];
    let set: String = letters.iter().filter(|(on, _)| *on).map(|(_, letter)| *letter).collect();
    if set.is_empty() { "N".into() } else { set }
}

/// Whether every condition that is set holds for this connection.
pub fn filter_matches(filter: &ClientFilter, session: &Session, now_ms: u64) -> bool {
    let is =
        |wanted: &Option<bytes::Bytes>, value: &[u8]| wanted.as_ref().is_none_or(|wanted| wanted == value);
    (filter.ids.is_empty() || filter.ids.contains(&session.id))
        && is(&filter.addr, session.addr.as_bytes())
        && is(&filter.laddr, session.laddr.as_bytes())
        && is(&filter.kind, b"normal")
        && is(&filter.user, USER)
        && filter.max_age_seconds.is_none_or(|age| age_seconds(session, now_ms) >= age)
        && filter.spare != Some(session.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::admin::testing::session;
    use bytes::Bytes;

    const NOW_MS: u64 = 1_700_000_060_500;

    #[test]
    fn fields_stand_in_the_order_of_redis() {
        let line = client_line(&session(), &Extras::default(), NOW_MS);
        let names: Vec<_> =
            line.trim_end().split(' ').map(|field| field.split('=').next().unwrap_or("")).collect();
        let expected = "id addr laddr fd name age idle flags db sub psub ssub multi qbuf qbuf-free argv-mem \
                        multi-mem rbs rbp obl oll omem tot-mem events cmd user redir resp lib-name lib-ver";
        assert_eq!(names.join(" "), expected);
        assert!(
            line.contains(
                "id=7 addr=127.0.0.1:50000 laddr=127.0.0.1:9221 fd=12 name= age=60 idle=30 flags=N"
            )
        );
        assert!(line.ends_with("cmd=ping user=default redir=-1 resp=2 lib-name= lib-ver=\n"));
    }

    #[test]
    fn every_condition_counts() {
        let session = session();
        let matches = |change: &dyn Fn(&mut ClientFilter)| {
            let mut filter = ClientFilter::default();
            change(&mut filter);
            filter_matches(&filter, &session, NOW_MS)
        };
        assert!(matches(&|_| ()));
        assert!(matches(&|filter| filter.ids = vec![3, 7]));
        assert!(!matches(&|filter| filter.ids = vec![3]));
        assert!(matches(&|filter| filter.addr = Some(Bytes::from_static(b"127.0.0.1:50000"))));
        assert!(!matches(&|filter| filter.addr = Some(Bytes::from_static(b"127.0.0.1:50001"))));
        assert!(!matches(&|filter| filter.laddr = Some(Bytes::from_static(b"127.0.0.1:50000"))));
        assert!(!matches(&|filter| filter.kind = Some(Bytes::from_static(b"pubsub"))));
        assert!(matches(&|filter| filter.kind = Some(Bytes::from_static(b"normal"))));
        assert!(matches(&|filter| filter.user = Some(Bytes::from_static(b"default"))));
        assert!(matches(&|filter| filter.max_age_seconds = Some(60)));
        assert!(!matches(&|filter| filter.max_age_seconds = Some(61)));
        assert!(!matches(&|filter| filter.spare = Some(7)));
    }
}
