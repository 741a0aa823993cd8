//! Searches among places: what they are told, and what they find.
//!
//! The six commands differ in where centre, shape and the key for the result stand among the arguments.

use super::{coordinates, distance, place, position, unit_m, within};
use crate::command::options::int;
use crate::command::{KeyArg, KeyArgs};
use crate::error::{ClientError, Stop};
use crate::resp::args::Args;
use crate::resp::number;
use crate::resp::reply::Reply;
use crate::store::tx::Tx;
use crate::types::geo::{self, Area, Position, Shape};
use crate::types::zset::SortedSet;
use smallvec::smallvec;

/// How the searches differ in their arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Point and radius stand before the options; `stores`: STORE and STOREDIST may name a key.
    Point { stores: bool },
    /// The same with a member instead of a point.
    Member { stores: bool },
    /// Centre and shape are options.
    Search,
    /// The same, the key for the result being the first argument.
    SearchStore,
}

impl Form {
    fn source(self) -> usize {
        if self == Form::SearchStore { 2 } else { 1 }
    }

    fn first_option(self) -> usize {
        match self {
            Form::Point { .. } => 6,
            Form::Member { .. } => 5,
            Form::Search => 2,
            Form::SearchStore => 3,
        }
    }

    fn has_centre_among_options(self) -> bool {
        matches!(self, Form::Search | Form::SearchStore)
    }

    fn may_name_store(self) -> bool {
        matches!(self, Form::Point { stores: true } | Form::Member { stores: true })
    }
}

/// The same keys as the handler finds: of several STORE and STOREDIST the last counts.
pub(super) fn georadius_keys(args: &Args<'_>) -> Result<KeyArgs, ClientError> {
    let mut keys: KeyArgs = smallvec![KeyArg { arg: 1, table: None }];
    let mut at = 5;
    while at + 1 < args.len() {
        if args.is(at, "store") || args.is(at, "storedist") {
            keys.truncate(1);
            keys.push(KeyArg { arg: at + 1, table: None });
            at += 1;
        }
        at += 1;
    }
    Ok(keys)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Ascending,
    Descending,
}

/// What a search's centre was given as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CentreBy {
    Member,
    Point,
}

/// Where a search's result is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Store<'a> {
    name: &'a [u8],
    /// Distances become the scores.
    distances: bool,
}

/// The place of a member that is a search's centre; None if there is no key.
type PlaceOf<'p> = dyn FnMut(&[u8]) -> Result<Option<Position>, Stop> + 'p;

/// What a search is told.
#[derive(Debug, Default, PartialEq)]
struct Search<'a> {
    centre_by: Option<CentreBy>,
    centre: Option<Position>,
    /// With metres in its unit.
    shape: Option<(Shape, f64)>,
    with_distance: bool,
    with_hash: bool,
    with_coordinates: bool,
    order: Option<Order>,
    count: Option<usize>,
    /// As many as COUNT says, whichever are found first.
    any: bool,
    store: Option<Store<'a>>,
}

impl<'a> Search<'a> {
    fn parse(args: &Args<'a>, form: Form, place_of: &mut PlaceOf<'_>) -> Result<Search<'a>, Stop> {
        let mut search = Search::default();
        match form {
            Form::Point { .. } => {
                search.centre = Some(position(args, 2)?);
                search.shape = Some(circle(args, 4)?);
            }
            Form::Member { .. } => {
                search.centre = place_of(args.get(2))?;
                // Like Redis, leaves the radius unread when there is no key.
                search.shape = search.centre.map(|_| circle(args, 3)).transpose()?;
            }
            Form::Search => {}
            Form::SearchStore => search.store = Some(Store { name: args.get(1), distances: false }),
        }
        let mut at = form.first_option();
        while at < args.len() {
            at += search.read_option(args, at, form, place_of)?;
        }
        search.check(args, form)?;
        Ok(search)
    }

    /// Answers how many arguments the option takes with its name.
    fn read_option(
        &mut self,
        args: &Args<'a>,
        at: usize,
        form: Form,
        place_of: &mut PlaceOf<'_>,
    ) -> Result<usize, Stop> {
        let left = args.len() - at - 1;
        let word = args.get(at).to_ascii_lowercase();
        match word.as_slice() {
            b"withdist" => self.with_distance = true,
            b"withhash" => self.with_hash = true,
            b"withcoord" => self.with_coordinates = true,
            b"any" => self.any = true,
            b"asc" => self.order = Some(Order::Ascending),
            b"desc" => self.order = Some(Order::Descending),
            b"count" if left >= 1 => {
                self.count = Some(count(args.get(at + 1))?);
                return Ok(2);
            }
            b"store" | b"storedist" if left >= 1 && form.may_name_store() => {
                self.store = Some(Store { name: args.get(at + 1), distances: word == b"storedist" });
                return Ok(2);
            }
            b"storedist" if form == Form::SearchStore => {
                self.store = self.store.map(|store| Store { distances: true, ..store });
            }
            _ if form.has_centre_among_options() => return self.read_area_option(args, at, place_of),
            _ => return Err(ClientError::SYNTAX.into()),
        }
        Ok(1)
    }

    fn read_area_option(
        &mut self,
        args: &Args<'a>,
        at: usize,
        place_of: &mut PlaceOf<'_>,
    ) -> Result<usize, Stop> {
        let left = args.len() - at - 1;
        let (has_box, has_circle) = match self.shape {
            Some((Shape::Box { .. }, _)) => (true, false),
            Some((Shape::Circle { .. }, _)) => (false, true),
            None => (false, false),
        };
        match args.get(at).to_ascii_lowercase().as_slice() {
            b"frommember" if left >= 1 && self.centre_by != Some(CentreBy::Point) => {
                self.centre = place_of(args.get(at + 1))?;
                self.centre_by = Some(CentreBy::Member);
                Ok(2)
            }
            b"fromlonlat" if left >= 2 && self.centre_by != Some(CentreBy::Member) => {
                self.centre = Some(position(args, at + 1)?);
                self.centre_by = Some(CentreBy::Point);
                Ok(3)
            }
            b"byradius" if left >= 2 && !has_box => {
                self.shape = Some(circle(args, at + 1)?);
                Ok(3)
            }
            b"bybox" if left >= 3 && !has_circle => {
                self.shape = Some(bounded_box(args, at + 1)?);
                Ok(4)
            }
            _ => Err(ClientError::SYNTAX.into()),
        }
    }

    /// Refuses options that do not go together, and a lack of those that must be there.
    fn check(&self, args: &Args<'_>, form: Form) -> Result<(), ClientError> {
        let one_of = |options: &str| {
            let command = String::from_utf8_lossy(args.get(0));
            Err(ClientError::new(format!("ERR exactly one of {options} can be specified for {command}")))
        };
        if self.store.is_some() && (self.with_distance || self.with_hash || self.with_coordinates) {
            return Err(ClientError::fixed(match form {
                Form::SearchStore => {
                    "ERR GEOSEARCHSTORE is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
                }
                _ => {
                    "ERR STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and WITHCOORD \
                     options"
                }
            }));
        }
        if form.has_centre_among_options() && self.centre_by.is_none() {
            return one_of("FROMMEMBER or FROMLONLAT");
        }
        if form.has_centre_among_options() && self.shape.is_none() {
            return one_of("BYRADIUS and BYBOX");
        }
        if self.any && self.count.is_none() {
            return Err(ClientError::fixed("ERR the ANY argument requires COUNT argument"));
        }
        Ok(())
    }

    /// None if the centre is a member and there is no key.
    fn area(&self) -> Option<Area> {
        let (shape, unit_m) = self.shape?;
        Some(Area { centre: self.centre?, shape, unit_m })
    }

    /// The nearest are wanted where COUNT does not say which.
    fn order(&self) -> Option<Order> {
        let nearest = self.count.is_some() && !self.any;
        self.order.or(nearest.then_some(Order::Ascending))
    }

    /// Puts in order what was found, and drops what is beyond COUNT.
    fn settle(&self, found: &mut Vec<Found>) {
        match self.order() {
            Some(Order::Ascending) => found.sort_by(|a, b| a.distance_m.total_cmp(&b.distance_m)),
            Some(Order::Descending) => found.sort_by(|a, b| b.distance_m.total_cmp(&a.distance_m)),
            None => {}
        }
        found.truncate(self.count.unwrap_or(usize::MAX));
    }

    fn run(&self, tx: &mut Tx<'_>, set: &SortedSet<'_>, area: &Area) -> Result<Vec<Found>, Stop> {
        // So few of many are wanted that the rest need not be held until the end.
        const HELD_MIN: usize = 1024;
        let limit = self.count.unwrap_or(usize::MAX);
        let (enough, held_max) = match self.any {
            true => (limit, usize::MAX),
            false => (usize::MAX, limit.saturating_mul(2).max(HELD_MIN)),
        };
        let mut found = Vec::new();
        for range in area.scores() {
            if found.len() >= enough {
                break;
            }
            within(tx, set, &range, &mut |member, score| {
                let place = Position::of_score(score);
                if let Some(distance_m) = area.distance_m(place) {
                    found.push(Found { member: member.to_vec(), score, distance_m });
                }
                if found.len() >= held_max {
                    self.settle(&mut found);
                }
                Ok(found.len() < enough)
            })?;
        }
        self.settle(&mut found);
        Ok(found)
    }

    fn reply(&self, found: Found, unit_m: f64) -> Reply {
        let mut parts = Vec::new();
        if self.with_distance {
            parts.push(distance(found.distance_m / unit_m));
        }
        if self.with_hash {
            parts.push(Reply::Int(geo::whole(found.score)));
        }
        if self.with_coordinates {
            parts.push(coordinates(Position::of_score(found.score)));
        }
        let member = Reply::bulk(found.member);
        if parts.is_empty() {
            return member;
        }
        parts.insert(0, member);
        Reply::Array(parts)
    }
}

fn count(arg: &[u8]) -> Result<usize, ClientError> {
    match int(arg)? {
        count if count <= 0 => Err(ClientError::fixed("ERR COUNT must be > 0")),
        count => Ok(usize::try_from(count).unwrap_or(usize::MAX)),
    }
}

/// A member within a search's area.
struct Found {
    member: Vec<u8>,
    score: f64,
    distance_m: f64,
}

pub(super) fn search(tx: &mut Tx<'_>, args: &Args<'_>, form: Form) -> Result<Reply, Stop> {
    let key = tx.key(args.get(form.source()));
    let set = SortedSet::load(tx, key)?;
    let search = Search::parse(args, form, &mut |member| {
        let missing = ClientError::fixed("ERR could not decode requested zset member");
        let found = place(tx, set.as_ref(), member)?;
        if set.is_some() && found.is_none() { Err(missing.into()) } else { Ok(found) }
    })?;
    let (found, unit_m) = match (&set, search.area()) {
        (Some(set), Some(area)) => (search.run(tx, set, &area)?, area.unit_m),
        _ => (Vec::new(), 1.0),
    };
    let Some(store) = search.store else {
        return Ok(Reply::Array(found.into_iter().map(|found| search.reply(found, unit_m)).collect()));
    };
    let kept = |found: Found| {
        let score = if store.distances { found.distance_m / unit_m } else { found.score };
        (found.member, score)
    };
    let members: Vec<_> = found.into_iter().map(kept).collect();
    let count = members.len() as i64;
    SortedSet::replace(tx, tx.key(store.name), &members)?;
    Ok(Reply::Int(count))
}

/// A circle as two arguments from `at` on, and metres in its unit.
fn circle(args: &Args<'_>, at: usize) -> Result<(Shape, f64), ClientError> {
    let radius = number::parse_f64(args.get(at)).ok_or(ClientError::fixed("ERR need numeric radius"))?;
    if radius < 0.0 {
        return Err(ClientError::fixed("ERR radius cannot be negative"));
    }
    Ok((Shape::Circle { radius }, unit_m(args.get(at + 1))?))
}

/// A box as three arguments from `at` on, and metres in its unit.
fn bounded_box(args: &Args<'_>, at: usize) -> Result<(Shape, f64), ClientError> {
    let width = number::parse_f64(args.get(at)).ok_or(ClientError::fixed("ERR need numeric width"))?;
    let height = number::parse_f64(args.get(at + 1)).ok_or(ClientError::fixed("ERR need numeric height"))?;
    if width < 0.0 || height < 0.0 {
        return Err(ClientError::fixed("ERR height or width cannot be negative"));
    }
    Ok((Shape::Box { width, height }, unit_m(args.get(at + 2))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::tests::{Server, Words, find};

    /// Berlin is the one member there is.
    fn berlin(member: &[u8]) -> Result<Option<Position>, Stop> {
        match member {
            b"Berlin" => Ok(Position::new(13.377704, 52.516275)),
            _ => Err(ClientError::fixed("ERR could not decode requested zset member").into()),
        }
    }

    #[track_caller]
    fn refused(line: &str, form: Form, expected: &'static str) {
        let words = Words::new(line);
        match Search::parse(&words.args(), form, &mut berlin) {
            Err(Stop::Client(error)) => assert_eq!(error.0, expected, "{line}"),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn searches_are_refused_in_the_words_of_redis_server() {
        // From redis-server 7.0.15.
        let syntax = "ERR syntax error";
        let search = [
            ("FROMMEMBER Paris ANY FOO", "ERR could not decode requested zset member"),
            ("FROMMEMBER Berlin FROMLONLAT 1 1 BYRADIUS 1 m", syntax),
            ("FROMLONLAT 1 1 FROMMEMBER Berlin BYRADIUS 1 m", syntax),
            ("FROMLONLAT 1 x BYRADIUS 1 m", "ERR value is not a valid float"),
            ("FROMLONLAT 1 86 BYRADIUS 1 m", "ERR invalid longitude,latitude pair 1.000000,86.000000"),
            ("FROMLONLAT 180.5 -inf BYRADIUS 1 m", "ERR invalid longitude,latitude pair 180.500000,-inf"),
            ("FROMMEMBER Berlin BYRADIUS 1 m BYBOX 1 1 m", syntax),
            ("FROMMEMBER Berlin BYBOX 1 1 m BYRADIUS 1 m", syntax),
            ("FROMMEMBER Berlin BYBOX 1 m ASC", "ERR need numeric height"),
            ("FROMMEMBER Berlin BYBOX nan 1 ASC", "ERR need numeric width"),
            ("FROMMEMBER Berlin BYBOX -1 1 cm", "ERR height or width cannot be negative"),
            ("FROMMEMBER Berlin BYRADIUS m 1 ASC", "ERR need numeric radius"),
            ("FROMMEMBER Berlin BYRADIUS -1 cm ASC", "ERR radius cannot be negative"),
            ("FROMMEMBER Berlin BYRADIUS 1 cm", "ERR unsupported unit provided. please use M, KM, FT, MI"),
            ("FROMMEMBER Berlin BYRADIUS 1", syntax),
            ("FROMMEMBER Berlin BYRADIUS 1 m COUNT", syntax),
            ("FROMMEMBER Berlin BYRADIUS 1 m COUNT 0", "ERR COUNT must be > 0"),
            ("FROMMEMBER Berlin BYRADIUS 1 m COUNT 1.5", "ERR value is not an integer or out of range"),
            ("FROMMEMBER Berlin BYRADIUS 1 m ANY", "ERR the ANY argument requires COUNT argument"),
            ("FROMMEMBER Berlin BYRADIUS 1 m STORE x", syntax),
            ("FROMMEMBER Berlin BYRADIUS 1 m STOREDIST", syntax),
            (
                "BYRADIUS 1 m COUNT 1 ASC",
                "ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for GeoSearch",
            ),
            (
                "FROMMEMBER Berlin COUNT 1 ASC",
                "ERR exactly one of BYRADIUS and BYBOX can be specified for GeoSearch",
            ),
        ];
        for (options, expected) in search {
            refused(&format!("GeoSearch k {options}"), Form::Search, expected);
        }
        let point = [
            ("1 1 1 m FROMMEMBER Berlin", syntax),
            ("1 1 1 m STORE", syntax),
            (
                "1 1 1 m STORE x WITHDIST",
                "ERR STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and WITHCOORD \
                 options",
            ),
        ];
        for (options, expected) in point {
            refused(&format!("GEORADIUS k {options}"), Form::Point { stores: true }, expected);
        }
        refused("GEORADIUS_RO k 1 1 1 m STORE x", Form::Point { stores: false }, syntax);
        refused(
            "GEOSEARCHSTORE x k FROMMEMBER Berlin BYRADIUS 1 m WITHHASH",
            Form::SearchStore,
            "ERR GEOSEARCHSTORE is not compatible with WITHDIST, WITHHASH and WITHCOORD options",
        );
    }

    #[test]
    fn options_come_in_any_order_and_the_last_of_a_kind_counts() {
        let parse = |line: &str, form, expected: Search<'_>| {
            let words = Words::new(line);
            assert_eq!(Search::parse(&words.args(), form, &mut berlin).unwrap(), expected, "{line}");
        };
        let around =
            |centre_by| Search { centre_by, centre: berlin(b"Berlin").unwrap(), ..Search::default() };
        parse(
            "GEOSEARCH k any WITHHASH BYBOX 1 1 m bybox 2 3 KM count 5 FROMMEMBER Berlin desc COUNT 7 asc",
            Form::Search,
            Search {
                shape: Some((Shape::Box { width: 2.0, height: 3.0 }, 1000.0)),
                with_hash: true,
                order: Some(Order::Ascending),
                count: Some(7),
                any: true,
                ..around(Some(CentreBy::Member))
            },
        );
        let mile = Some((Shape::Circle { radius: 1e3 }, 1609.34));
        parse(
            "GEORADIUSBYMEMBER k Berlin 1e3 mi STOREDIST a STORE b",
            Form::Member { stores: true },
            Search { shape: mile, store: Some(Store { name: b"b", distances: false }), ..around(None) },
        );
        parse(
            "GEOSEARCHSTORE a k STOREDIST FROMLONLAT 13.377704 52.516275 BYRADIUS +1000. Mi",
            Form::SearchStore,
            Search {
                shape: mile,
                store: Some(Store { name: b"a", distances: true }),
                ..around(Some(CentreBy::Point))
            },
        );
    }

    #[test]
    fn without_a_key_the_rest_of_the_arguments_is_still_checked() {
        let words = Words::new("GEORADIUSBYMEMBER k Berlin x y STORE a");
        let form = Form::Member { stores: true };
        let search = Search::parse(&words.args(), form, &mut |_| Ok(None)).unwrap();
        assert_eq!((search.area(), search.store.is_some()), (None, true));
        let mut server = Server::default();
        assert_eq!(server.run("GEOSEARCH k FROMMEMBER a BYRADIUS 1 m"), Reply::Array(vec![]));
        assert_eq!(server.run("GEOSEARCH k FROMMEMBER a BYRADIUS 1 m ,"), Reply::Error(ClientError::SYNTAX));
        assert_eq!(server.run("GEOPOS k a"), Reply::Array(vec![Reply::NilArray]));
        assert_eq!(server.run("GEOHASH k a"), Reply::Array(vec![Reply::Nil]));
        assert_eq!(server.run("GEODIST k a b"), Reply::Nil);
    }

    #[test]
    fn the_key_of_a_result_is_found_among_the_options() {
        let found = |line: &str| -> Vec<usize> {
            let words = Words::new(line);
            let keys = find(&words).spec.keys.of(&words.args()).unwrap();
            keys.iter().map(|key| key.arg).collect()
        };
        assert_eq!(found("GEORADIUS k 1 1 1 m COUNT 1"), [1]);
        assert_eq!(found("GEORADIUS k 1 1 1 m store a ASC STOREDIST b"), [1, 10]);
        assert_eq!(found("GEORADIUSBYMEMBER k a 1 m STORE STORE"), [1, 6]);
        assert_eq!(found("GEORADIUSBYMEMBER k STORE 1 m STORE"), [1]);
        assert_eq!(found("GEOSEARCHSTORE a k FROMMEMBER b BYRADIUS 1 m"), [1, 2]);
    }

    #[test]
    fn the_nearest_of_many_are_found_without_holding_all() {
        let mut server = Server::default();
        for number in 0..2_500 {
            server.int(&format!("GEOADD k {}.{:02} 0 {number}", number / 100, number % 100), 1);
        }
        let mut search = |options: &str, expected: [&str; 3]| {
            let found = server.run(&format!("GEOSEARCH k FROMLONLAT 0 0 BYRADIUS 9999 km {options}"));
            assert_eq!(found, Reply::Array(expected.map(Reply::text).to_vec()), "{options}");
        };
        search("COUNT 3", ["0", "1", "2"]);
        search("COUNT 3 DESC", ["2499", "2498", "2497"]);
    }
}
