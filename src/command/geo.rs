//! Commands on places: sorted sets whose scores are positions on Earth.
//!
//! Arguments in, a reply out; what a score means and which scores an area takes is known to `types::geo`.

use super::{Group, KeyCommand, Keys, Spec, flag};
use crate::error::{ClientError, Stop};
use crate::resp::args::Args;
use crate::resp::number;
use crate::resp::reply::Reply;
use crate::store::tx::Tx;
use crate::types::geo::{self, Position};
use crate::types::zset::{ScoreRange, See, SortedSet};
use search::{Form, georadius_keys, search};
use std::ops::Range;

mod search;

const ONE_KEY: Spec = Spec {
    group: Group::Geo,
    since: "3.2.0",
    complexity: "O(log N) for each member named, where N is the number of members",
    ..super::ONE_KEY
};

const SEARCH: Spec = Spec {
    complexity: "O(N) where N is the number of members in the grid cells that cover the area",
    ..ONE_KEY
};

pub const COMMANDS: &[KeyCommand] = &[
    KeyCommand {
        spec: Spec {
            name: "geoadd",
            arity: -5,
            flags: flag::WRITE | flag::DENYOOM,
            summary: "Puts members at places, given as longitude and latitude",
            ..ONE_KEY
        },
        run: geoadd,
    },
    KeyCommand {
        spec: Spec {
            name: "geodist",
            arity: -4,
            flags: flag::READONLY,
            summary: "Distance between two members",
            ..ONE_KEY
        },
        run: geodist,
    },
    KeyCommand {
        spec: Spec {
            name: "geohash",
            arity: -2,
            flags: flag::READONLY,
            summary: "Geohashes of members' places, as geohash.org has them",
            ..ONE_KEY
        },
        run: geohash,
    },
    KeyCommand {
        spec: Spec {
            name: "geopos",
            arity: -2,
            flags: flag::READONLY,
            summary: "Longitudes and latitudes of members",
            ..ONE_KEY
        },
        run: geopos,
    },
    KeyCommand {
        spec: Spec {
            name: "georadius",
            arity: -6,
            flags: flag::WRITE | flag::DENYOOM | flag::ANY_VALUES,
            keys: Keys::Find(georadius_keys),
            summary: "Members within a radius of a point, answered or kept under another key",
            ..SEARCH
        },
        run: |tx, args| search(tx, args, Form::Point { stores: true }),
    },
    KeyCommand {
        spec: Spec {
            name: "georadius_ro",
            arity: -6,
            flags: flag::READONLY,
            since: "3.2.10",
            summary: "Members within a radius of a point",
            ..SEARCH
        },
        run: |tx, args| search(tx, args, Form::Point { stores: false }),
    },
    KeyCommand {
        spec: Spec {
            name: "georadiusbymember",
            arity: -5,
            flags: flag::WRITE | flag::DENYOOM | flag::ANY_VALUES,
            keys: Keys::Find(georadius_keys),
            summary: "Members within a radius of one of them, answered or kept under another key",
            ..SEARCH
        },
        run: |tx, args| search(tx, args, Form::Member { stores: true }),
    },
    KeyCommand {
        spec: Spec {
            name: "georadiusbymember_ro",
            arity: -5,
            flags: flag::READONLY,
            since: "3.2.10",
            summary: "Members within a radius of one of them",
            ..SEARCH
        },
        run: |tx, args| search(tx, args, Form::Member { stores: false }),
    },
    KeyCommand {
        spec: Spec {
            name: "geosearch",
            arity: -7,
            flags: flag::READONLY,
            since: "6.2.0",
            summary: "Members within a circle or a box",
            ..SEARCH
        },
        run: |tx, args| search(tx, args, Form::Search),
    },
    KeyCommand {
        spec: Spec {
            name: "geosearchstore",
            arity: -8,
            flags: flag::WRITE | flag::DENYOOM | flag::ANY_VALUES,
            keys: Keys::Span { first: 1, last: 2, step: 1 },
            since: "6.2.0",
            summary: "Keeps the members within a circle or a box under another key",
            ..SEARCH
        },
        run: |tx, args| search(tx, args, Form::SearchStore),
    },
];

fn geoadd(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let (mut nx, mut xx, mut changed, mut first) = (false, false, false, 2);
    while first < args.len() {
        match args.get(first).to_ascii_lowercase().as_slice() {
            b"nx" => nx = true,
            b"xx" => xx = true,
            b"ch" => changed = true,
            _ => break,
        }
        first += 1;
    }
    let words = args.len() - first;
    if words == 0 || !words.is_multiple_of(3) || nx && xx {
        return Err(ClientError::SYNTAX.into());
    }
    let mut places = Vec::with_capacity(words / 3);
    for at in (first..args.len()).step_by(3) {
        places.push((position(args, at)?.score(), args.get(at + 2)));
    }
    let flags = super::zset::AddFlags { nx, xx, changed, ..Default::default() };
    super::zset::add(tx, tx.key(args.get(1)), flags, &places)
}

fn geodist(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let unit_m = match args.len() {
        4 => 1.0,
        5 => unit_m(args.get(4))?,
        _ => return Err(ClientError::SYNTAX.into()),
    };
    let key = tx.key(args.get(1));
    let set = SortedSet::load(tx, key)?;
    let from = place(tx, set.as_ref(), args.get(2))?;
    let to = place(tx, set.as_ref(), args.get(3))?;
    Ok(match (from, to) {
        (Some(from), Some(to)) => distance(from.distance_m(to) / unit_m),
        _ => Reply::Nil,
    })
}

fn geohash(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    each_place(tx, args, |place| match place {
        Some(place) => Reply::bulk(place.geohash().to_vec()),
        None => Reply::Nil,
    })
}

fn geopos(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    each_place(tx, args, |place| place.map_or(Reply::NilArray, coordinates))
}

fn each_place(tx: &mut Tx<'_>, args: &Args<'_>, reply: fn(Option<Position>) -> Reply) -> Result<Reply, Stop> {
    let key = tx.key(args.get(1));
    let set = SortedSet::load(tx, key)?;
    let mut replies = Vec::with_capacity(args.len() - 2);
    for member in args.iter(2) {
        replies.push(reply(place(tx, set.as_ref(), member)?));
    }
    Ok(Reply::Array(replies))
}

fn coordinates(position: Position) -> Reply {
    let degrees = |degrees| Reply::Digits(geo::degrees_text(degrees).into());
    Reply::Array(vec![degrees(position.longitude()), degrees(position.latitude())])
}

fn distance(distance: f64) -> Reply {
    Reply::bulk(geo::distance_text(distance))
}

/// A position as two arguments from `at` on.
fn position(args: &Args<'_>, at: usize) -> Result<Position, ClientError> {
    let degrees = |at| number::parse_f64(args.get(at)).ok_or(ClientError::NOT_FLOAT);
    let (longitude, latitude) = (degrees(at)?, degrees(at + 1)?);
    let wrong = || format!("ERR invalid longitude,latitude pair {longitude:.6},{latitude:.6}");
    Position::new(longitude, latitude).ok_or_else(|| ClientError::new(wrong()))
}

fn unit_m(arg: &[u8]) -> Result<f64, ClientError> {
    let wrong = ClientError::fixed("ERR unsupported unit provided. please use M, KM, FT, MI");
    geo::unit_m(arg).ok_or(wrong)
}

/// Where a member of a key is.
fn place(tx: &mut Tx<'_>, set: Option<&SortedSet<'_>>, member: &[u8]) -> Result<Option<Position>, Stop> {
    match set {
        Some(set) => Ok(set.score(tx, member)?.map(Position::of_score)),
        None => Ok(None),
    }
}

/// Calls `visit` with the members whose scores are in a range, ascending, until it answers false.
fn within(tx: &mut Tx<'_>, set: &SortedSet<'_>, range: &Range<f64>, visit: &mut See<'_>) -> Result<(), Stop> {
    let range = ScoreRange { min: range.start, min_open: false, max: range.end, max_open: true };
    set.by_score(tx, &range, false, visit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::tests::Server;

    /// A reply as one line, a list's items in brackets.
    fn show(reply: Reply) -> String {
        match reply {
            Reply::Bulk(text) | Reply::Digits(text) => {
                String::from_utf8(text.to_vec()).expect("the tests' names are text")
            }
            Reply::Int(number) => number.to_string(),
            Reply::Array(items) => format!("[{}]", items.into_iter().map(show).collect::<Vec<_>>().join(" ")),
            Reply::NilArray | Reply::Nil => "-".to_owned(),
            Reply::Error(error) => error.0.into_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_dialogue_goes_as_with_redis_server() {
        // From redis-server 7.0.15.
        let dialogue = [
            ("GEOADD s 13.361389 38.115556 Palermo 15.087269 37.502669 Catania", "2"),
            ("GEOADD s NX 1 1 Palermo 12.758489 38.788135 edge1", "1"),
            ("GEOADD s XX CH 17.24151 38.788135 edge2", "0"),
            ("GEOADD s CH 17.24151 38.788135 edge2", "1"),
            ("GEOADD s ch xx 12.758 38.788135 edge1 17.24151 38.788135 edge2", "1"),
            ("GEOADD s NX XX 1 1 a", "ERR syntax error"),
            ("GEOADD s NX CH CH", "ERR syntax error"),
            ("GEOADD s 1 1 a 2", "ERR syntax error"),
            ("GEOADD s 1 1 a 200 2 b", "ERR invalid longitude,latitude pair 200.000000,2.000000"),
            ("GEODIST s Palermo Catania", "166274.1516"),
            ("GEODIST s Palermo Catania km", "166.2742"),
            ("GEODIST s Palermo nobody", "-"),
            ("GEODIST s Palermo Catania cm", "ERR unsupported unit provided. please use M, KM, FT, MI"),
            ("GEODIST s Palermo Catania m m", "ERR syntax error"),
            ("GEOHASH s Palermo nobody Catania", "[sqc8b49rny0 - sqdtr74hyu0]"),
            ("GEOPOS s Palermo nobody", "[[13.36138933897018433 38.11555639549629859] -]"),
            ("GEOPOS s", "[]"),
            (
                "GEORADIUS s 15 37 200 km WITHCOORD WITHDIST",
                "[[Palermo 190.4424 [13.36138933897018433 38.11555639549629859]] \
                 [Catania 56.4413 [15.08726745843887329 37.50266842333162032]]]",
            ),
            ("GEORADIUS s 15 37 200 km DESC", "[Palermo Catania]"),
            ("GEORADIUS_RO s 15 37 200 km COUNT 1 WITHHASH", "[[Catania 3479447370796909]]"),
            ("GEORADIUSBYMEMBER s Palermo 170 km ASC", "[Palermo edge1 Catania]"),
            ("GEORADIUSBYMEMBER_RO s nobody 170 km", "ERR could not decode requested zset member"),
            (
                "GEOSEARCH s FROMLONLAT 15 37 BYBOX 400 400 km ASC WITHDIST",
                "[[Catania 56.4413] [Palermo 190.4424] [edge2 279.7403] [edge1 279.7706]]",
            ),
            ("GEOSEARCH s FROMMEMBER Catania BYRADIUS 300 km COUNT 2 ANY", "[Palermo edge1]"),
            ("GEOSEARCH s FROMMEMBER Catania BYRADIUS 300 km COUNT 2 DESC", "[edge1 edge2]"),
            ("GEOSEARCH s FROMLONLAT 90 37 BYRADIUS 1 km", "[]"),
            ("GEOSEARCHSTORE t s FROMLONLAT 15 37 BYBOX 400 400 km COUNT 3", "3"),
            ("GEOHASH t Palermo Catania edge1 edge2", "[sqc8b49rny0 sqdtr74hyu0 - squk8m4vk20]"),
            ("GEORADIUS s 15 37 200 km STORE u", "2"),
            ("GEOHASH u Palermo Catania", "[sqc8b49rny0 sqdtr74hyu0]"),
            ("GEORADIUS s 15 37 1 m STOREDIST u", "0"),
            ("GEOHASH u Palermo Catania", "[- -]"),
            ("GEOSEARCHSTORE s s FROMLONLAT 15 37 BYRADIUS 100 km STOREDIST", "1"),
            ("GEOPOS s Palermo Catania", "[- [-179.9999651312828064 -85.05111737375477787]]"),
            ("GEOSEARCHSTORE t none FROMLONLAT 15 37 BYRADIUS 100 km", "0"),
            ("GEOPOS t Palermo", "[-]"),
        ];
        let mut server = Server::default();
        for (line, expected) in dialogue {
            assert_eq!(show(server.run(line)), expected, "{line}");
        }
    }
}
