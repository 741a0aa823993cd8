//! Arguments that several commands share: integers, tables, SET's options and moments of expiry.
//!
//! Reads arguments only; touches no key.

use super::{KeyArg, KeyArgs};
use crate::error::ClientError;
use crate::resp::args::Args;
use crate::resp::{glob, number};
use crate::slot::TableId;
use std::ops::Range;

/// An argument as a 64-bit integer, by Redis's strict rules.
pub fn int(arg: &[u8]) -> Result<i64, ClientError> {
    number::parse_i64(arg).ok_or(ClientError::NOT_INTEGER)
}

/// A table by its number; there are `tables` of them.
pub fn table(arg: &[u8], tables: u32) -> Result<TableId, ClientError> {
    let number = i32::try_from(int(arg)?).map_err(|_| {
        ClientError::fixed("ERR value is out of range, value must between -2147483648 and 2147483647")
    })?;
    match u32::try_from(number) {
        Ok(number) if number < tables => Ok(TableId(number)),
        _ => Err(ClientError::fixed("ERR DB index is out of range")),
    }
}

/// How many of its elements a collection is asked for by chance; negative: with repeats.
pub fn random_count(arg: &[u8]) -> Result<i64, ClientError> {
    match int(arg)? {
        i64::MIN => Err(ClientError::fixed(
            "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
        )),
        count => Ok(count),
    }
}

/// What follows the cursor of HSCAN, SSCAN and ZSCAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanOptions<'a> {
    pub pattern: Option<&'a [u8]>,
    /// Elements looked at, about.
    pub count: u64,
    pub no_values: bool,
}

/// Most elements one call looks at, whatever COUNT says.
const SCAN_COUNT_MAX: u64 = 10_000;
const SCAN_COUNT_DEFAULT: u64 = 10;

impl<'a> ScanOptions<'a> {
    /// As C's strtoul reads it: nothing is 0, and a sign is allowed.
    pub fn cursor(text: &[u8]) -> Result<u64, ClientError> {
        const INVALID: ClientError = ClientError::fixed("ERR invalid cursor");
        let (negative, digits) = match text {
            [b'-', digits @ ..] => (true, digits),
            [b'+', digits @ ..] => (false, digits),
            digits => (false, digits),
        };
        if digits.is_empty() {
            return if text.is_empty() { Ok(0) } else { Err(INVALID) };
        }
        let number = digits.iter().try_fold(0u64, |number, digit| {
            let digit = char::from(*digit).to_digit(10)?;
            number.checked_mul(10)?.checked_add(u64::from(digit))
        });
        let number = number.ok_or(INVALID)?;
        Ok(if negative { number.wrapping_neg() } else { number })
    }

    /// Reads what stands from argument `from` on; `values`: NOVALUES is allowed.
    pub fn parse(args: &Args<'a>, from: usize, values: bool) -> Result<ScanOptions<'a>, ClientError> {
        let mut options = ScanOptions { pattern: None, count: SCAN_COUNT_DEFAULT, no_values: false };
        let mut at = from;
        while at < args.len() {
            let more = at + 1 < args.len();
            if args.is(at, "COUNT") && more {
                let count = u64::try_from(int(args.get(at + 1))?).ok().filter(|count| *count > 0);
                options.count = count.ok_or(ClientError::SYNTAX)?.min(SCAN_COUNT_MAX);
                at += 1;
            } else if args.is(at, "MATCH") && more {
                options.pattern = Some(args.get(at + 1)).filter(|pattern| *pattern != b"*");
                at += 1;
            } else if values && args.is(at, "NOVALUES") {
                options.no_values = true;
            } else {
                return Err(ClientError::SYNTAX);
            }
            at += 1;
        }
        Ok(options)
    }

    pub fn wants(&self, name: &[u8]) -> bool {
        glob::allows(self.pattern, name)
    }
}

/// What follows a range of keys or of fields in Pika's commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeOptions<'a> {
    pub pattern: Option<&'a [u8]>,
    /// Keys or fields of the range that are looked at.
    pub limit: usize,
}

impl<'a> RangeOptions<'a> {
    /// Reads what stands from argument `from` on. `word` is how the command calls its limit.
    pub fn parse(args: &Args<'a>, from: usize, word: &str) -> Result<RangeOptions<'a>, ClientError> {
        RangeOptions::read(args, from, word, |limit| limit > 0)
    }

    /// As HSCANX reads them: none at all is a limit too.
    pub fn parse_count(args: &Args<'a>, from: usize) -> Result<RangeOptions<'a>, ClientError> {
        RangeOptions::read(args, from, "COUNT", |_| true)
    }

    fn read(
        args: &Args<'a>,
        from: usize,
        word: &str,
        allowed: fn(i64) -> bool,
    ) -> Result<RangeOptions<'a>, ClientError> {
        let (mut pattern, mut limit) = (None, SCAN_COUNT_DEFAULT as i64);
        for at in (from..args.len()).step_by(2) {
            let known = args.is(at, "MATCH") || args.is(at, word);
            if !known || at + 1 == args.len() {
                return Err(ClientError::SYNTAX);
            }
            let value = args.get(at + 1);
            if args.is(at, "MATCH") {
                pattern = Some(value).filter(|pattern| *pattern != b"*");
            } else {
                limit = Some(int(value)?).filter(|limit| allowed(*limit)).ok_or(ClientError::NOT_INTEGER)?;
            }
        }
        let limit = u64::try_from(limit).map_err(|_| ClientError::SYNTAX)?;
        Ok(RangeOptions { pattern, limit: limit.min(SCAN_COUNT_MAX) as usize })
    }

    pub fn wants(&self, name: &[u8]) -> bool {
        glob::allows(self.pattern, name)
    }
}

/// What LMPOP, ZMPOP and the forms of them that wait are told from their number of keys on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManyPop {
    /// Which arguments are the keys.
    pub keys: Range<usize>,
    /// The second of the two words that say from which end.
    pub second_end: bool,
    pub count: u64,
}

impl ManyPop {
    /// The number of keys is argument `at`; the word behind them is one of `ends`.
    pub fn parse(args: &Args<'_>, at: usize, ends: [&str; 2]) -> Result<ManyPop, ClientError> {
        let keys = ManyPop::numbered(args, at)?;
        let end = keys.end;
        let second_end = match ends.map(|word| args.is(end, word)) {
            [true, _] => false,
            [_, true] => true,
            _ => return Err(ClientError::SYNTAX),
        };
        let count = match args.len() - end {
            1 => 1,
            3.. if args.is(end + 1, "COUNT") => positive(args.get(end + 2), "count")?,
            _ => return Err(ClientError::SYNTAX),
        };
        if args.len() > end + 3 {
            return Err(ClientError::SYNTAX);
        }
        Ok(ManyPop { keys, second_end, count })
    }

    /// Its keys, as the planner wants them: by their number alone, whatever follows. None if the number is
    /// wrong; the command itself says what is wrong with it.
    pub fn keys(args: &Args<'_>, at: usize) -> Result<KeyArgs, ClientError> {
        let keys = ManyPop::numbered(args, at).unwrap_or(0..0);
        Ok(keys.map(|arg| KeyArg { arg, table: None }).collect())
    }

    /// The keys that argument `at` counts; something follows them.
    fn numbered(args: &Args<'_>, at: usize) -> Result<Range<usize>, ClientError> {
        let keys = positive(args.get(at), "numkeys")?;
        let end = usize::try_from(keys).ok().and_then(|keys| keys.checked_add(at + 1));
        let end = end.filter(|end| *end < args.len()).ok_or(ClientError::SYNTAX)?;
        Ok(at + 1..end)
    }
}

fn positive(arg: &[u8], what: &str) -> Result<u64, ClientError> {
    let number = int(arg).ok().and_then(|number| u64::try_from(number).ok());
    let wrong = || ClientError::new(format!("ERR {what} should be greater than 0"));
    number.filter(|number| *number > 0).ok_or_else(wrong)
}

/// How long a command is to wait, given in seconds: in milliseconds, 0 for ever. What is too much for 64 bits
/// has become negative in redis-server 7.0.
pub fn timeout_ms(arg: &[u8]) -> Result<u64, ClientError> {
    let seconds = number::parse_long_double(arg)
        .ok_or(ClientError::fixed("ERR timeout is not a float or out of range"))?;
    let ms = (seconds * 1000.0).ceil();
    if ms < 0.0 || ms >= i64::MAX as f64 {
        return Err(ClientError::fixed("ERR timeout is negative"));
    }
    Ok(ms as u64)
}

/// How a time argument counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeForm {
    pub unit_ms: i64,
    /// Since the epoch instead of from now.
    pub absolute: bool,
}

impl TimeForm {
    pub const SECONDS: TimeForm = TimeForm { unit_ms: 1000, absolute: false };
    pub const MILLISECONDS: TimeForm = TimeForm { unit_ms: 1, absolute: false };
    pub const UNIX_SECONDS: TimeForm = TimeForm { unit_ms: 1000, absolute: true };
    pub const UNIX_MILLISECONDS: TimeForm = TimeForm { unit_ms: 1, absolute: true };

    /// The moment in milliseconds since the epoch, perhaps long past; None if 64 bits do not hold it.
    pub fn moment_ms(self, amount: i64, now_ms: u64) -> Option<i64> {
        let base = if self.absolute { 0 } else { i64::try_from(now_ms).ok()? };
        amount.checked_mul(self.unit_ms)?.checked_add(base)
    }

    /// The moment that an argument of `command` names, where it must be greater than zero.
    pub fn deadline_ms(self, command: &str, arg: &[u8], now_ms: u64) -> Result<u64, ClientError> {
        let amount = int(arg)?;
        let moment = self.moment_ms(amount, now_ms).filter(|_| amount > 0);
        moment.map(i64::unsigned_abs).ok_or_else(|| ClientError::invalid_expire(command))
    }
}

/// What SET and GETEX are told about expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry<'a> {
    Unsaid,
    Keep,
    Persist,
    At(TimeForm, &'a [u8]),
}

impl<'a> Expiry<'a> {
    pub fn deadline_ms(self, command: &str, now_ms: u64) -> Result<Option<u64>, ClientError> {
        match self {
            Expiry::At(form, arg) => form.deadline_ms(command, arg, now_ms).map(Some),
            _ => Ok(None),
        }
    }

    /// Reads EX, PX, EXAT or PXAT at `index`; the same one may come twice, two different ones may not.
    fn read_at(self, args: &Args<'a>, index: usize) -> Result<Expiry<'a>, ClientError> {
        let forms = [
            ("EX", TimeForm::SECONDS),
            ("PX", TimeForm::MILLISECONDS),
            ("EXAT", TimeForm::UNIX_SECONDS),
            ("PXAT", TimeForm::UNIX_MILLISECONDS),
        ];
        let form = forms.iter().find(|(word, _)| args.is(index, word)).map(|(_, form)| *form);
        match (form, self) {
            (Some(form), Expiry::Unsaid) if index + 1 < args.len() => {
                Ok(Expiry::At(form, args.get(index + 1)))
            }
            (Some(form), Expiry::At(before, _)) if form == before && index + 1 < args.len() => {
                Ok(Expiry::At(form, args.get(index + 1)))
            }
            _ => Err(ClientError::SYNTAX),
        }
    }

    /// Reads a word that must not stand beside another kind of expiry.
    fn set_to(self, word: Expiry<'a>) -> Result<Expiry<'a>, ClientError> {
        if self == Expiry::Unsaid || self == word { Ok(word) } else { Err(ClientError::SYNTAX) }
    }
}

/// What follows SET's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetOptions<'a> {
    /// Only if the key is not there.
    pub nx: bool,
    /// Only if it is.
    pub xx: bool,
    pub get: bool,
    /// Only if the key holds this: Pika's VX.
    pub vx: Option<&'a [u8]>,
    pub expiry: Expiry<'a>,
}

impl<'a> SetOptions<'a> {
    pub fn parse(args: &Args<'a>) -> Result<SetOptions<'a>, ClientError> {
        let mut options = SetOptions { nx: false, xx: false, get: false, vx: None, expiry: Expiry::Unsaid };
        let mut index = 3;
        while index < args.len() {
            let vx = options.vx.is_some();
            if args.is(index, "NX") && !options.xx && !vx {
                options.nx = true;
            } else if args.is(index, "XX") && !options.nx && !vx {
                options.xx = true;
            } else if args.is(index, "GET") && !vx {
                options.get = true;
            } else if args.is(index, "VX")
                && index + 1 < args.len()
                && !options.nx
                && !options.xx
                && !options.get
            {
                options.vx = Some(args.get(index + 1));
                index += 1;
            } else if args.is(index, "KEEPTTL") {
                options.expiry = options.expiry.set_to(Expiry::Keep)?;
            } else {
                options.expiry = options.expiry.read_at(args, index)?;
                index += 1;
            }
            index += 1;
        }
        Ok(options)
    }

    /// Whether the old value decides nothing and is not asked for, so that it need not be read.
    pub fn blind(&self) -> bool {
        !self.nx && !self.xx && !self.get && self.vx.is_none() && self.expiry != Expiry::Keep
    }
}

/// What follows GETEX's key.
pub fn getex_expiry<'a>(args: &Args<'a>) -> Result<Expiry<'a>, ClientError> {
    let mut expiry = Expiry::Unsaid;
    let mut index = 2;
    while index < args.len() {
        if args.is(index, "PERSIST") {
            expiry = expiry.set_to(Expiry::Persist)?;
        } else {
            expiry = expiry.read_at(args, index)?;
            index += 1;
        }
        index += 1;
    }
    Ok(expiry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::tests::Words;

    fn set(words: &str) -> Result<Expiry<'static>, ClientError> {
        let words = Box::leak(Box::new(Words::new(&format!("SET k v {words}"))));
        SetOptions::parse(&words.args()).map(|options| options.expiry)
    }

    #[test]
    fn kinds_of_expiry_exclude_each_other() {
        assert_eq!(set("ex 1 EX 2"), Ok(Expiry::At(TimeForm::SECONDS, b"2")));
        assert_eq!(set("KEEPTTL keepttl NX nx GET"), Ok(Expiry::Keep));
        for words in
            ["EX 1 PX 1", "KEEPTTL EX 1", "PXAT 1 KEEPTTL", "EX", "NX XX", "XX NX", "PERSIST", "EX 1 2"]
        {
            assert_eq!(set(words), Err(ClientError::SYNTAX), "{words}");
        }
    }

    #[test]
    fn timeouts_as_redis_server_takes_them() {
        let ms = |arg: &str| timeout_ms(arg.as_bytes());
        for (arg, expected) in
            [("0", 0), ("-0", 0), ("-0.0001", 0), ("0.0001", 1), ("0x1p1", 2000), ("1.5", 1500), ("0.01", 10)]
        {
            assert_eq!(ms(arg), Ok(expected), "{arg}");
        }
        assert!(ms("9223372036854774").is_ok());
        for arg in ["-1", "inf", "-inf", "1e400", "9223372036854776", "1e4932"] {
            assert_eq!(ms(arg), Err(ClientError::fixed("ERR timeout is negative")), "{arg}");
        }
        for arg in ["x", "nan", "", " 1", "1e-5000"] {
            let wrong = ClientError::fixed("ERR timeout is not a float or out of range");
            assert_eq!(ms(arg), Err(wrong), "{arg}");
        }
    }

    #[test]
    fn moments_that_do_not_fit_are_refused() {
        let now = 1_700_000_000_000;
        assert_eq!(TimeForm::SECONDS.moment_ms(-5, now), Some(1_699_999_995_000));
        assert_eq!(TimeForm::UNIX_SECONDS.moment_ms(i64::MAX / 1000 + 1, now), None);
        assert_eq!(TimeForm::MILLISECONDS.moment_ms(i64::MAX - 1, now), None);
        assert_eq!(
            TimeForm::MILLISECONDS.deadline_ms("set", b"0", now),
            Err(ClientError::invalid_expire("set"))
        );
        assert_eq!(TimeForm::UNIX_MILLISECONDS.deadline_ms("set", b"1", now), Ok(1));
    }
}
