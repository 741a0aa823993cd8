//! Places on Earth as scores of a sorted set, distances between them, and the scores that an area takes.
//!
//! A score is a cell of a grid over the world, longitude's and latitude's bits in turn, so that cells near
//! each other mostly have scores near each other. Pure: knows no sorted set, no command and no reply.
//! Source: geohash.c and geohash_helper.c of Redis 7.0, whose results these are to the last bit.

use smallvec::SmallVec;
use std::f64::consts::PI;
use std::ops::{Range, RangeInclusive};

/// Degrees, either side of Greenwich.
pub const LONGITUDE_MAX: f64 = 180.0;
/// Degrees, either side of the equator: where a square Mercator map ends (EPSG:3857).
pub const LATITUDE_MAX: f64 = 85.05112878;
/// A geohash's text reaches to the poles.
const TEXT_LATITUDE_MAX: f64 = 90.0;

const EARTH_RADIUS_M: f64 = 6_372_797.560856;
/// Half the side of the Mercator map.
const MERCATOR_MAX_M: f64 = 20_037_726.37;
const RADIANS: f64 = PI / 180.0;

/// Halvings of each side of the world down to the cells of scores: 52 bits in both.
const STEPS_MAX: u32 = 26;

/// Metres in one of a unit, by its name in any case.
pub fn unit_m(name: &[u8]) -> Option<f64> {
    const UNITS: [(&[u8], f64); 4] = [(b"m", 1.0), (b"km", 1000.0), (b"ft", 0.3048), (b"mi", 1609.34)];
    UNITS.iter().find(|(unit, _)| unit.eq_ignore_ascii_case(name)).map(|(_, metres)| *metres)
}

/// A score's whole part; what 64 bits do not hold is `i64::MIN`, as on x86.
pub fn whole(score: f64) -> i64 {
    let held = (-TWO_TO_63..TWO_TO_63).contains(&score);
    if held { score as i64 } else { i64::MIN }
}

const TWO_TO_63: f64 = (1_u64 << 63) as f64;

/// The bits a score stands for. Any sorted set may be taken for places, so any number must do.
fn bits(score: f64) -> u64 {
    if score < TWO_TO_63 { whole(score) as u64 } else { whole(score - TWO_TO_63) as u64 ^ 1 << 63 }
}

/// A point on the map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Position {
    longitude: f64,
    latitude: f64,
}

impl Position {
    /// From degrees; None if they are not on the map.
    pub fn new(longitude: f64, latitude: f64) -> Option<Position> {
        let within = |degrees: f64, max: f64| (-max..=max).contains(&degrees);
        let on_map = within(longitude, LONGITUDE_MAX) && within(latitude, LATITUDE_MAX);
        on_map.then_some(Position { longitude, latitude })
    }

    /// Degrees.
    pub fn longitude(self) -> f64 {
        self.longitude
    }

    /// Degrees.
    pub fn latitude(self) -> f64 {
        self.latitude
    }

    /// The score of its cell.
    pub fn score(self) -> f64 {
        Cell::of(self, STEPS_MAX, LATITUDE_MAX).scores().start
    }

    /// The centre of the cell that a score stands for, or what is nearest to it on the map.
    pub fn of_score(score: f64) -> Position {
        let bits = bits(score);
        let cell = Cell { column: every_other(bits >> 1), row: every_other(bits), steps: STEPS_MAX };
        let centre =
            |side: RangeInclusive<f64>, max: f64| ((side.start() + side.end()) / 2.0).clamp(-max, max);
        Position {
            longitude: centre(cell.longitudes(), LONGITUDE_MAX),
            latitude: centre(cell.latitudes(), LATITUDE_MAX),
        }
    }

    /// The geohash of geohash.org: 50 of its bits, and a last character that is always 0.
    pub fn geohash(self) -> [u8; 11] {
        const ALPHABET: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
        let mut text = [ALPHABET[0]; 11];
        let bits = Cell::of(self, STEPS_MAX, TEXT_LATITUDE_MAX).bits();
        for (at, character) in text[..10].iter_mut().enumerate() {
            *character = ALPHABET[(bits >> (47 - 5 * at) & 31) as usize];
        }
        text
    }

    /// Metres along the great circle (haversine).
    pub fn distance_m(self, other: Position) -> f64 {
        let half_sine = |a: f64, b: f64| ((b * RADIANS - a * RADIANS) / 2.0).sin();
        let across = half_sine(self.longitude, other.longitude);
        if across == 0.0 {
            return self.distance_along_meridian_m(other);
        }
        let along = half_sine(self.latitude, other.latitude);
        let narrowing = (self.latitude * RADIANS).cos() * (other.latitude * RADIANS).cos();
        // Rounding may lift the sum for opposite points above one, where there is no arc sine.
        let share = (along * along + narrowing * across * across).min(1.0);
        2.0 * EARTH_RADIUS_M * share.sqrt().asin()
    }

    /// Metres north or south, longitudes left out.
    fn distance_along_meridian_m(self, other: Position) -> f64 {
        EARTH_RADIUS_M * (other.latitude * RADIANS - self.latitude * RADIANS).abs()
    }
}

/// What a search takes in around its centre, in the units of the search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    Circle { radius: f64 },
    Box { width: f64, height: f64 },
}

/// Where to search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Area {
    pub centre: Position,
    pub shape: Shape,
    /// Metres in one of the shape's unit.
    pub unit_m: f64,
}

impl Area {
    /// Metres from the centre to a position, if that lies within the area.
    pub fn distance_m(&self, position: Position) -> Option<f64> {
        let distance = self.centre.distance_m(position);
        let within = match self.shape {
            Shape::Circle { radius } => distance <= radius * self.unit_m,
            Shape::Box { width, height } => {
                let level = Position { longitude: self.centre.longitude, ..position };
                position.distance_along_meridian_m(self.centre) <= height * self.unit_m / 2.0
                    && position.distance_m(level) <= width * self.unit_m / 2.0
            }
        };
        within.then_some(distance)
    }

    /// Ranges that hold the score of every position in the area, and others too, in the order in which
    /// Redis looks through them.
    pub fn scores(&self) -> SmallVec<[Range<f64>; 9]> {
        let (longitudes, latitudes) = self.bounds();
        let centre = self.centre_cell(&longitudes, &latitudes);
        let mut cells: SmallVec<[Cell; 9]> = SmallVec::new();
        for (east, north) in ORDER {
            let cell = centre.neighbour(east, north);
            // In the coarsest grid, neighbours on both sides are one cell.
            if !centre.hides(east, north, &longitudes, &latitudes) && cells.last() != Some(&cell) {
                cells.push(cell);
            }
        }
        cells.iter().map(|cell| cell.scores()).collect()
    }

    /// Longitudes and latitudes around the area, not cut to the world.
    fn bounds(&self) -> (RangeInclusive<f64>, RangeInclusive<f64>) {
        let Position { longitude, latitude } = self.centre;
        let (width, height) = match self.shape {
            Shape::Circle { radius } => (radius, radius),
            Shape::Box { width, height } => (width / 2.0, height / 2.0),
        };
        let degrees = |metres: f64, narrowing: f64| metres / EARTH_RADIUS_M / narrowing / RADIANS;
        let tall = degrees(self.unit_m * height, 1.0);
        let towards_pole = if latitude < 0.0 { latitude - tall } else { latitude + tall };
        let wide = degrees(self.unit_m * width, (towards_pole * RADIANS).cos());
        (longitude - wide..=longitude + wide, latitude - tall..=latitude + tall)
    }

    /// The cell around the centre, of a size that it and its neighbours cover the area.
    fn centre_cell(&self, longitudes: &RangeInclusive<f64>, latitudes: &RangeInclusive<f64>) -> Cell {
        let reach = match self.shape {
            Shape::Circle { radius } => radius,
            Shape::Box { width, height } => {
                ((width / 2.0) * (width / 2.0) + (height / 2.0) * (height / 2.0)).sqrt()
            }
        };
        let steps = steps(reach * self.unit_m, self.centre.latitude);
        let cell = Cell::of(self.centre, steps, LATITUDE_MAX);
        let short = cell.neighbour(0, 1).latitudes().end() < latitudes.end()
            || cell.neighbour(0, -1).latitudes().start() > latitudes.start()
            || cell.neighbour(1, 0).longitudes().end() < longitudes.end()
            || cell.neighbour(-1, 0).longitudes().start() > longitudes.start();
        if short && steps > 1 { Cell::of(self.centre, steps - 1, LATITUDE_MAX) } else { cell }
    }
}

/// Steps east and north from a cell to itself and its neighbours.
const ORDER: [(i32, i32); 9] = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)];

/// A guess at how fine the grid may be for a reach of so many metres.
fn steps(reach_m: f64, latitude: f64) -> u32 {
    if reach_m == 0.0 {
        return STEPS_MAX;
    }
    let (mut reach_m, mut steps) = (reach_m, -1);
    while reach_m < MERCATOR_MAX_M {
        reach_m *= 2.0;
        steps += 1;
    }
    // Cells are narrower towards the poles.
    let narrower = [66.0, 80.0].iter().filter(|limit| latitude.abs() > **limit).count() as i32;
    (steps - narrower).clamp(1, STEPS_MAX as i32) as u32
}

/// A cell of the grid that halves the world `steps` times each way; columns count from the west and rows
/// from the south. The easternmost and northernmost degree are in a column and a row of their own.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cell {
    column: u32,
    row: u32,
    steps: u32,
}

impl Cell {
    /// The one a position is in; `latitude_max` is where the world ends.
    fn of(position: Position, steps: u32, latitude_max: f64) -> Cell {
        let place = |degrees: f64, max: f64| ((degrees + max) / (max + max) * cells(steps)) as u32;
        Cell {
            column: place(position.longitude, LONGITUDE_MAX),
            row: place(position.latitude, latitude_max),
            steps,
        }
    }

    /// One that touches it; the world goes round in both directions.
    fn neighbour(self, east: i32, north: i32) -> Cell {
        let step = |place: u32, by: i32| match by {
            0 => place,
            _ => place.wrapping_add_signed(by) & ((1 << self.steps) - 1),
        };
        Cell { column: step(self.column, east), row: step(self.row, north), ..self }
    }

    /// Whether the area around its inside, with these bounds, ends before the neighbour begins. Not asked in
    /// the coarsest grid, whose neighbours are on both sides.
    fn hides(
        self,
        east: i32,
        north: i32,
        longitudes: &RangeInclusive<f64>,
        latitudes: &RangeInclusive<f64>,
    ) -> bool {
        let beyond = |by: i32, side: RangeInclusive<f64>, bounds: &RangeInclusive<f64>| {
            by < 0 && side.start() < bounds.start() || by > 0 && side.end() > bounds.end()
        };
        self.steps >= 2
            && (beyond(east, self.longitudes(), longitudes) || beyond(north, self.latitudes(), latitudes))
    }

    fn longitudes(self) -> RangeInclusive<f64> {
        self.side(self.column, LONGITUDE_MAX)
    }

    fn latitudes(self) -> RangeInclusive<f64> {
        self.side(self.row, LATITUDE_MAX)
    }

    fn side(self, place: u32, max: f64) -> RangeInclusive<f64> {
        let degrees = |place: u32| -max + f64::from(place) / cells(self.steps) * (max + max);
        degrees(place)..=degrees(place.wrapping_add(1))
    }

    fn bits(self) -> u64 {
        spread(self.column) << 1 | spread(self.row)
    }

    /// From the first score in it to the first behind it.
    fn scores(self) -> Range<f64> {
        let align = |bits: u64| (bits << (2 * (STEPS_MAX - self.steps))) as f64;
        align(self.bits())..align(self.bits() + 1)
    }
}

/// Cells along one side of the world.
fn cells(steps: u32) -> f64 {
    f64::from(1_u32 << steps)
}

/// Each bit moved to twice its place: zeros between them.
fn spread(number: u32) -> u64 {
    let mut number = u64::from(number);
    for (shift, mask) in HALVES.into_iter().rev() {
        number = (number | number << shift) & mask;
    }
    number
}

/// Every other bit, the lowest first: `spread` undone.
fn every_other(number: u64) -> u32 {
    let mut number = number & HALVES[0].1;
    for ((shift, _), (_, mask)) in HALVES.into_iter().zip(HALVES.into_iter().skip(1)) {
        number = (number | number >> shift) & mask;
    }
    (number | number >> 16) as u32
}

/// Groups of bits with as many zeros above each, and how many.
const HALVES: [(u32, u64); 5] = [
    (1, 0x5555_5555_5555_5555),
    (2, 0x3333_3333_3333_3333),
    (4, 0x0f0f_0f0f_0f0f_0f0f),
    (8, 0x00ff_00ff_00ff_00ff),
    (16, 0x0000_ffff_0000_ffff),
];

/// Degrees as Redis prints them: C's `%.17Lf` without the zeros at its end.
pub fn degrees_text(degrees: f64) -> String {
    let text = format!("{degrees:.17}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// A distance in any unit as Redis prints it, with four decimals.
pub fn distance_text(distance: f64) -> String {
    let parts = (distance * 10_000.0).round_ties_even() as u64;
    format!("{}.{:04}", parts / 10_000, parts % 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(longitude: f64, latitude: f64) -> Position {
        Position::new(longitude, latitude).expect("it is on the map")
    }

    #[test]
    fn places_have_the_scores_centres_and_geohashes_of_redis_server() {
        // From redis-server 7.0.15: GEOADD, then ZSCORE, GEOPOS and GEOHASH.
        let cases = [
            (
                13.361389,
                38.115556,
                3479099956230698_u64,
                "13.36138933897018433",
                "38.11555639549629859",
                "sqc8b49rny0",
            ),
            (
                15.087269,
                37.502669,
                3479447370796909,
                "15.08726745843887329",
                "37.50266842333162032",
                "sqdtr74hyu0",
            ),
            (
                13.377704,
                52.516275,
                3673983823275668,
                "13.37770253419876099",
                "52.51627556518374718",
                "u33db2m37p0",
            ),
            (-180.0, -LATITUDE_MAX, 0, "-179.99999731779098511", "-85.05112751263942528", "00bh0hbj200"),
            (180.0, LATITUDE_MAX, 13510798882111488, "180", "85.0511287799999991", "bp05b5048p0"),
            (0.0, 0.0, 3377699720527872, "0.00000268220901489", "0.00000126736058093", "s0000000000"),
            (-1e-7, -1e-7, 1125899906842623, "-0.00000268220901489", "-0.00000126736058093", "7zzzzzzzzz0"),
            (
                151.2093,
                -33.8688,
                3252046221964352,
                "151.20929986238479614",
                "-33.86880091934155956",
                "r3gx2f77bj0",
            ),
            (
                -122.4194155,
                37.7749295,
                1367859919124776,
                "-122.41941779851913452",
                "37.77493042721969374",
                "9q8yyk8yuv0",
            ),
            (
                179.999999,
                -12.5,
                3359811092265711,
                "179.99999731779098511",
                "-12.49999894240989562",
                "rvzbzurypz0",
            ),
            (
                -77.0364,
                38.8951,
                1790437224063468,
                "-77.03639835119247437",
                "38.89509974916635571",
                "dqcjqbxu3u0",
            ),
            (
                24.9384,
                84.999,
                3788358404785772,
                "24.93839889764785767",
                "84.99900097199761717",
                "ux1ex3xe4f0",
            ),
            (1e-20, 66.00001, 3729891618984965, "0.00000268220901489", "66.00001119577829911", "u58p2nbjbj0"),
        ];
        for (longitude, latitude, score, centre_longitude, centre_latitude, geohash) in cases {
            let place = at(longitude, latitude);
            assert_eq!(place.score(), score as f64, "{place:?}");
            let centre = Position::of_score(score as f64);
            assert_eq!(degrees_text(centre.longitude()), centre_longitude);
            assert_eq!(degrees_text(centre.latitude()), centre_latitude);
            assert_eq!(centre.geohash(), geohash.as_bytes(), "{geohash}");
        }
    }

    #[test]
    fn scores_no_place_has_mean_what_they_do_to_redis_server() {
        // From redis-server 7.0.15: ZADD, then GEOPOS.
        let (south, north) = ("-85.05112751263942528", "85.0511287799999991");
        let cases = [
            (-5.0, "180", north),
            (-0.5, "-179.99999731779098511", south),
            (1e30, "-179.99999731779098511", south),
            (-1e30, "180", south),
            (f64::INFINITY, "-179.99999731779098511", south),
            (TWO_TO_63, "180", south),
            (9_223_372_036_854_779_904.0, "180", "-85.05096529048520893"),
            (1.844674407370955e19, "180", north),
        ];
        for (score, longitude, latitude) in cases {
            let position = Position::of_score(score);
            assert_eq!(degrees_text(position.longitude()), longitude, "{score}");
            assert_eq!(degrees_text(position.latitude()), latitude, "{score}");
        }
        assert_eq!((whole(-7.9), whole(TWO_TO_63), whole(f64::NEG_INFINITY)), (-7, i64::MIN, i64::MIN));
    }

    #[test]
    fn distances_as_redis_server_prints_them() {
        // From redis-server 7.0.15: GEODIST between places added before.
        let cases = [
            (
                (13.361389, 38.115556),
                (15.087269, 37.502669),
                ["166274.1516", "166.2742", "545518.8700", "103.3182"],
            ),
            (
                (13.377704, 52.516275),
                (13.377704, -52.516275),
                ["11682382.0418", "11682.3820", "38328025.0715", "7259.1137"],
            ),
            (
                (-180.0, -LATITUDE_MAX),
                (180.0, LATITUDE_MAX),
                ["18919844.5891", "18919.8446", "62072980.9353", "11756.2756"],
            ),
            ((0.0, 0.0), (-1e-7, -1e-7), ["0.6599", "0.0007", "2.1651", "0.0004"]),
            (
                (151.2093, -33.8688),
                (-122.4194155, 37.7749295),
                ["11951031.9052", "11951.0319", "39209422.2611", "7426.0454"],
            ),
            (
                (179.999999, -12.5),
                (-180.0, -LATITUDE_MAX),
                ["8069593.5917", "8069.5936", "26475044.5922", "5014.2255"],
            ),
            (
                (1e-20, 66.00001),
                (-77.0364, 38.8951),
                ["5545997.8498", "5545.9978", "18195531.0033", "3446.1319"],
            ),
            ((1.0, 1.0), (1.0, 1.0), ["0.0000"; 4]),
        ];
        for (a, b, expected) in cases {
            let [a, b] =
                [a, b].map(|(longitude, latitude)| Position::of_score(at(longitude, latitude).score()));
            for (unit, expected) in ["m", "KM", "ft", "Mi"].iter().zip(expected) {
                let unit = unit_m(unit.as_bytes()).expect("a known unit");
                assert_eq!(distance_text(a.distance_m(b) / unit), expected, "{a:?} {b:?}");
            }
        }
        assert_eq!((unit_m(b"cm"), unit_m(b"")), (None, None));
    }

    /// Places every 40 and 20 degrees, by score.
    fn lattice() -> Vec<(f64, usize)> {
        let place = |at_: usize| at((at_ / 9) as f64 * 40.0 - 160.0, (at_ % 9) as f64 * 20.0 - 80.0);
        let mut places: Vec<_> = (0..81).map(|number| (place(number).score(), number)).collect();
        places.sort_by(|a, b| a.0.total_cmp(&b.0));
        places
    }

    #[test]
    fn areas_are_looked_through_in_the_order_of_redis_server() {
        let circle = |radius| Shape::Circle { radius };
        let cut = |width, height| Shape::Box { width, height };
        // From redis-server 7.0.15: GEOSEARCH in kilometres, without ASC or DESC.
        let cases: [(f64, f64, Shape, &[usize]); 13] = [
            (0.0, 0.0, circle(5000.0), &[40, 41, 49, 50, 42, 38, 39, 48, 31, 32, 30]),
            (0.0, 0.0, circle(3000.0), &[40, 41, 39]),
            (10.0, 50.0, circle(2500.0), &[43, 52, 42]),
            (100.0, -50.0, cut(9000.0, 4000.0), &[46, 55, 56, 64, 73, 65]),
            (179.0, 0.0, circle(4500.0), &[76, 77, 75, 4, 5, 3]),
            (-20.0, 75.0, circle(3000.0), &[8, 17, 25, 26, 34, 35, 43, 52, 44, 53, 62, 71, 80]),
            (-20.0, 84.0, circle(1500.0), &[17, 26, 35, 44, 53, 62]),
            (-20.0, -84.0, circle(2600.0), &[0, 9, 18, 27, 36, 45, 54, 63, 72]),
            (
                0.0,
                0.0,
                circle(12000.0),
                &[
                    40, 41, 49, 50, 42, 51, 58, 59, 60, 43, 52, 44, 53, 61, 62, 70, 71, 80, 36, 45, 37, 46,
                    54, 55, 38, 47, 39, 48, 56, 57, 63, 64, 72, 8, 16, 17, 22, 23, 24, 31, 32, 33, 25, 26,
                    34, 35, 0, 9, 10, 18, 19, 27, 28, 20, 21, 29, 30,
                ],
            ),
            (30.0, -10.0, cut(2000.0, 20000.0), &[36, 45, 46, 54, 47, 51, 52]),
            (
                -160.0,
                -80.0,
                cut(30000.0, 30000.0),
                &[
                    0, 1, 9, 10, 2, 3, 11, 12, 18, 19, 27, 28, 20, 21, 29, 30, 4, 5, 6, 13, 14, 15, 22, 23,
                    24, 31, 32, 33, 36, 45, 37, 46, 54, 55, 38, 47, 56, 57, 63, 64, 72, 73, 65, 66, 74, 75,
                    42, 51, 58, 59, 60, 67, 68, 69, 76, 77, 78,
                ],
            ),
            (15.0, 5.0, circle(6000.0), &[40, 41, 49, 50, 42, 51, 38, 47, 39, 48]),
            (118.5, 21.0, circle(5300.0), &[58, 59, 60, 61, 67, 68, 69, 76, 77, 78, 70, 66]),
        ];
        let lattice = lattice();
        for (longitude, latitude, shape, expected) in cases {
            let area = Area { centre: at(longitude, latitude), shape, unit_m: 1000.0 };
            let mut found = Vec::new();
            for range in area.scores() {
                let inside = |(score, _): &&(f64, usize)| {
                    range.contains(score) && area.distance_m(Position::of_score(*score)).is_some()
                };
                found.extend(lattice.iter().filter(inside).map(|(_, number)| *number));
            }
            assert_eq!(found, expected, "{area:?}");
        }
    }

    #[test]
    fn areas_without_bounds_are_the_whole_world_once() {
        for size in [f64::INFINITY, f64::MAX, 1e9] {
            let shapes = [Shape::Circle { radius: size }, Shape::Box { width: size, height: size }];
            for shape in shapes {
                let area = Area { centre: at(-12.0, 34.0), shape, unit_m: 1609.34 };
                let mut starts: Vec<_> = area.scores().iter().map(|range| range.start).collect();
                starts.sort_by(f64::total_cmp);
                let quarter = (1_u64 << 50) as f64;
                assert_eq!(starts, [0.0, quarter, 2.0 * quarter, 3.0 * quarter]);
                assert!(
                    lattice().iter().all(|(score, _)| area.distance_m(Position::of_score(*score)).is_some())
                );
            }
        }
    }

    #[test]
    fn what_is_not_on_the_map_is_no_position() {
        for (longitude, latitude) in
            [(180.1, 0.0), (-180.1, 0.0), (0.0, 85.06), (0.0, -85.06), (f64::NAN, 0.0), (0.0, f64::INFINITY)]
        {
            assert_eq!(Position::new(longitude, latitude), None);
        }
    }

    #[test]
    fn degrees_are_rounded_as_printf_does() {
        // From C's `printf("%.17Lf")`, zeros at the end taken off.
        let cases = [(-1e-18, "0"), (0.5, "0.5"), (-120.0, "-120"), (1.0 / 262_144.0, "0.00000381469726562")];
        for (degrees, text) in cases {
            assert_eq!(degrees_text(degrees), text);
        }
        assert_eq!(degrees_text(3.0 / 262_144.0), "0.00001144409179688");
    }

    proptest! {
        #[test]
        fn a_place_is_within_half_a_cell_of_its_score(
            longitude in -LONGITUDE_MAX..=LONGITUDE_MAX,
            latitude in -LATITUDE_MAX..=LATITUDE_MAX,
        ) {
            let place = at(longitude, latitude);
            let centre = Position::of_score(place.score());
            prop_assert!((centre.longitude() - longitude).abs() <= 360.0 / f64::from(1 << 27) + 1e-12);
            prop_assert!((centre.latitude() - latitude).abs() <= 171.0 / f64::from(1 << 27) + 1e-12);
            let area = Area { centre: place, shape: Shape::Circle { radius: 1.0 }, unit_m: 1.0 };
            prop_assert!(area.scores()[0].contains(&place.score()));
        }

        #[test]
        fn any_scores_and_sizes_can_be_searched(a: f64, b: f64, width: f64, height: f64) {
            let (a, b) = (Position::of_score(a), Position::of_score(b));
            prop_assert!((0.0..=EARTH_RADIUS_M * PI).contains(&a.distance_m(b)));
            prop_assert!(a.geohash().iter().all(u8::is_ascii_alphanumeric));
            let (width, height) = (width.abs(), height.abs());
            for shape in [Shape::Circle { radius: width }, Shape::Box { width, height }] {
                let area = Area { centre: a, shape, unit_m: 0.3048 };
                prop_assert!(area.scores().iter().all(|range| range.start < range.end));
                let _ = area.distance_m(b);
            }
        }
    }
}
