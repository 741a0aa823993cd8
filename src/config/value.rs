//! Values of parameters: from the text an operator writes to a typed field, and back.
//!
//! The texts of the errors are those of Redis 7's CONFIG SET. Knows no parameter by name.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// What a parameter accepts; both bounds are inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Integer {
        min: i64,
        max: i64,
    },
    /// A number of bytes, with or without a unit.
    Bytes {
        min: i64,
        max: i64,
    },
    Choice(&'static [&'static str]),
    Switch,
    Text,
}

impl Kind {
    pub(super) fn number(&self, text: &str) -> Result<i64, String> {
        let (number, min, max) = match *self {
            Kind::Integer { min, max } => (integer(text), min, max),
            Kind::Bytes { min, max } => (bytes(text), min, max),
            _ => unreachable!("only numeric rows have numeric fields"),
        };
        let number = number.ok_or_else(|| match self {
            Kind::Bytes { .. } => "argument must be a memory value".to_owned(),
            _ => "argument couldn't be parsed into an integer".to_owned(),
        })?;
        if (min..=max).contains(&number) {
            return Ok(number);
        }
        Err(format!("argument must be between {min} and {max} inclusive"))
    }
}

/// Decimal digits in their shortest form, as Redis wants them.
fn integer(text: &str) -> Option<i64> {
    text.parse().ok().filter(|number: &i64| number.to_string() == text)
}

/// Redis's sizes (`k` is 1000, `kb` 1024, and so on), and `KiB`, `MiB`, `GiB`, `TiB`.
fn bytes(text: &str) -> Option<i64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit: i64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" | "kib" => 1 << 10,
        "m" => 1_000_000,
        "mb" | "mib" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" | "gib" => 1 << 30,
        "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(unit)
}

/// A type that a field of the configuration may have.
pub trait Value {
    /// Takes over what the text says; unchanged on error.
    fn assign(&mut self, kind: &Kind, text: &str) -> Result<(), String>;
    /// As CONFIG GET answers it; `assign` understands it.
    fn show(&self) -> String;
}

macro_rules! number {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn assign(&mut self, kind: &Kind, text: &str) -> Result<(), String> {
                *self = kind.number(text)?.try_into().expect("the row's range fits the field");
                Ok(())
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
number!(u16, u32, u64, i64);

impl Value for bool {
    fn assign(&mut self, _: &Kind, text: &str) -> Result<(), String> {
        *self = match text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "true" => true,
            "no" | "off" | "false" => false,
            _ => return Err("argument must be 'yes' or 'no'".to_owned()),
        };
        Ok(())
    }

    fn show(&self) -> String {
        if *self { "yes" } else { "no" }.to_owned()
    }
}

impl Value for String {
    fn assign(&mut self, _: &Kind, text: &str) -> Result<(), String> {
        *self = text.to_owned();
        Ok(())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Value for PathBuf {
    fn assign(&mut self, _: &Kind, text: &str) -> Result<(), String> {
        if text.is_empty() {
            return Err("argument must not be empty".to_owned());
        }
        *self = PathBuf::from(text);
        Ok(())
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$case_doc:meta])* $case:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$case_doc])* $case),* }

        impl $name {
            pub const WORDS: &[&str] = &[$($word),*];

            /// As it is written in a configuration.
            pub fn word(self) -> &'static str {
                match self { $($name::$case => $word),* }
            }
        }

        impl Value for $name {
            fn assign(&mut self, _: &Kind, text: &str) -> Result<(), String> {
                *self = match text.to_ascii_lowercase().as_str() {
                    $($word => $name::$case,)*
                    _ => {
                        let words = Self::WORDS.join(", ");
                        return Err(format!("argument(s) must be one of the following: {words}"));
                    }
                };
                Ok(())
            }

            fn show(&self) -> String {
                self.word().to_owned()
            }
        }
    };
}

choice! {
    /// When what a reply confirms must be on disk.
    Fsync {
        /// At most the last second is lost with the power.
        Everysec = "everysec",
        /// Nothing is lost.
        Always = "always",
        /// When the kernel pleases.
        No = "no",
    }
}

choice! {
    /// Numbered databases, or Pika's tables of slots.
    InstanceMode { Classic = "classic", Sharding = "sharding" }
}

choice! {
    /// Which hash turns keys into slots.
    HashName {
        /// Pika's and Codis's, modulo default-slot-num.
        Crc32 = "crc32",
        /// Redis Cluster's, always 16384 slots.
        Crc16 = "crc16",
    }
}

choice! {
    LogFormat { Text = "text", Json = "json" }
}

choice! {
    /// Redis's levels, the most talkative first.
    LogLevel { Debug = "debug", Verbose = "verbose", Notice = "notice", Warning = "warning" }
}

impl LogLevel {
    /// The same as a filter of the `tracing` crates; Redis's debug and verbose are one level there.
    pub fn directive(self) -> &'static str {
        match self {
            LogLevel::Debug | LogLevel::Verbose => "debug",
            LogLevel::Notice => "info",
            LogLevel::Warning => "warn",
        }
    }
}

/// A password; empty for none. Does not show itself in debug output.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    pub const MAX_BYTES: usize = 512;

    pub fn is_set(&self) -> bool {
        !self.0.is_empty()
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_set() { "(set)" } else { "(none)" })
    }
}

impl Value for Password {
    fn assign(&mut self, _: &Kind, text: &str) -> Result<(), String> {
        if text.len() > Password::MAX_BYTES {
            return Err("Password is longer than CONFIG_AUTHPASS_MAX_LEN".to_owned());
        }
        self.0 = text.to_owned();
        Ok(())
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindAddress {
    pub ip: IpAddr,
    /// Written with a leading `-`: it is no error if the machine does not have it.
    pub optional: bool,
}

impl Value for Vec<BindAddress> {
    fn assign(&mut self, _: &Kind, text: &str) -> Result<(), String> {
        let addresses: Vec<_> = text.split_whitespace().map(bind_address).collect::<Result<_, _>>()?;
        if addresses.is_empty() {
            return Err("argument must name an address to listen on".to_owned());
        }
        *self = addresses;
        Ok(())
    }

    fn show(&self) -> String {
        let shown = self.iter().map(|a| format!("{}{}", if a.optional { "-" } else { "" }, a.ip));
        shown.collect::<Vec<_>>().join(" ")
    }
}

fn bind_address(text: &str) -> Result<BindAddress, String> {
    let (optional, address) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let address = match address {
        "*" => "0.0.0.0",
        "::*" => "::",
        other => other,
    };
    let ip = address.parse().map_err(|_| format!("'{text}' is not an IP address"))?;
    Ok(BindAddress { ip, optional })
}

/// Numbers of CPUs, ascending; written like `0,2-3`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuList(pub Vec<u16>);

impl CpuList {
    /// Linux numbers no more CPUs than this.
    const CPU_MAX: u16 = 8191;
}

impl Value for CpuList {
    fn assign(&mut self, _: &Kind, text: &str) -> Result<(), String> {
        let mut cpus = Vec::new();
        for part in text.split(',').map(str::trim).filter(|_| !text.trim().is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
                (Ok(first), Ok(last)) if first <= last && last <= CpuList::CPU_MAX => {
                    cpus.extend(first..=last)
                }
                _ => return Err(format!("'{part}' is not a CPU or a range of CPUs such as 2-3")),
            }
        }
        cpus.sort_unstable();
        cpus.dedup();
        self.0 = cpus;
        Ok(())
    }

    fn show(&self) -> String {
        let runs = self.0.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
            [one] => one.to_string(),
            _ => format!("{}-{}", run[0], run[run.len() - 1]),
        });
        runs.collect::<Vec<_>>().join(",")
    }
}

/// When a client that does not read its replies is closed; 0 turns a condition off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputLimit {
    /// At once above this many bytes.
    pub hard_bytes: u64,
    /// Above this many bytes for `soft_s` seconds.
    pub soft_bytes: u64,
    pub soft_s: u64,
}

/// Redis's client-output-buffer-limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputLimits {
    pub normal: OutputLimit,
    pub replica: OutputLimit,
    pub pubsub: OutputLimit,
}

impl Default for OutputLimits {
    /// Redis's; without a limit of its own a normal client is still bounded by the ledger.
    fn default() -> OutputLimits {
        let limit = |hard_mib: u64, soft_mib: u64, soft_s| OutputLimit {
            hard_bytes: hard_mib << 20,
            soft_bytes: soft_mib << 20,
            soft_s,
        };
        OutputLimits { normal: limit(0, 0, 0), replica: limit(256, 64, 60), pubsub: limit(32, 8, 60) }
    }
}

impl Value for OutputLimits {
    /// Classes that are not named keep their limits.
    fn assign(&mut self, _: &Kind, text: &str) -> Result<(), String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        if !words.len().is_multiple_of(4) {
            return Err("Wrong number of arguments in buffer limit configuration.".to_owned());
        }
        let mut limits = *self;
        for class in words.chunks(4) {
            let limit = match class[0].to_ascii_lowercase().as_str() {
                "normal" => &mut limits.normal,
                "slave" | "replica" => &mut limits.replica,
                "pubsub" => &mut limits.pubsub,
                _ => return Err("Invalid client class specified in buffer limit configuration.".to_owned()),
            };
            let parsed = (bytes(class[1]), bytes(class[2]), class[3].parse::<u64>());
            let (Some(hard), Some(soft), Ok(soft_s)) = parsed else {
                let wrong = "Error in hard, soft or soft_seconds setting in buffer limit configuration.";
                return Err(wrong.to_owned());
            };
            *limit = OutputLimit { hard_bytes: hard as u64, soft_bytes: soft as u64, soft_s };
        }
        *self = limits;
        Ok(())
    }

    fn show(&self) -> String {
        let class = |name, limit: OutputLimit| {
            format!("{name} {} {} {}", limit.hard_bytes, limit.soft_bytes, limit.soft_s)
        };
        [class("normal", self.normal), class("slave", self.replica), class("pubsub", self.pubsub)].join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn assigned<T: Value + Default>(text: &str) -> Result<String, String> {
        let mut value = T::default();
        value.assign(&Kind::Text, text).map(|()| value.show())
    }

    #[test]
    fn sizes_have_redis_units_and_binary_ones() {
        for (text, expect) in [
            ("12", Some(12)),
            ("12B", Some(12)),
            ("1k", Some(1000)),
            ("1kb", Some(1024)),
            ("512MiB", Some(512 << 20)),
            ("2g", Some(2_000_000_000)),
            ("2GiB", Some(2 << 30)),
            ("1tb", Some(1 << 40)),
            ("", None),
            ("mb", None),
            ("-5", None),
            ("1.5gb", None),
            ("1 gb", None),
            ("9999999tb", None),
        ] {
            assert_eq!(bytes(text), expect, "{text:?}");
        }
    }

    #[test]
    fn integers_are_strict_as_in_redis() {
        for text in ["+5", "05", " 3", "0x10", "1.5", "", "-0", "9999999999999999999999"] {
            assert_eq!(integer(text), None, "{text:?}");
        }
        assert_eq!((integer("-1"), integer("0"), integer("70000")), (Some(-1), Some(0), Some(70000)));
    }

    #[test]
    fn lists_of_cpus() {
        assert_eq!(assigned::<CpuList>("0,2-3").unwrap(), "0,2-3");
        assert_eq!(assigned::<CpuList>("3, 2,2 - 2,0").unwrap(), "0,2-3");
        assert_eq!(assigned::<CpuList>("").unwrap(), "");
        for wrong in ["a", "3-1", "1,,2", "0-", "-1", "0-60000"] {
            assert!(assigned::<CpuList>(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn addresses_to_listen_on() {
        assert_eq!(assigned::<Vec<BindAddress>>("* -::* 10.0.0.1").unwrap(), "0.0.0.0 -:: 10.0.0.1");
        assert!(assigned::<Vec<BindAddress>>("").is_err());
        assert!(assigned::<Vec<BindAddress>>("localhost").unwrap_err().contains("'localhost'"));
    }

    #[test]
    fn output_limits_follow_redis() {
        let mut limits = OutputLimits::default();
        assert_eq!(limits.show(), "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60");
        limits.assign(&Kind::Text, "normal 1mb 2kb 3 pubsub 5 5 5").unwrap();
        assert_eq!(limits.show(), "normal 1048576 2048 3 slave 268435456 67108864 60 pubsub 5 5 5");
        let before = limits;
        for wrong in
            ["foo", "normal 1 2", "foo 1 2 3", "normal x 2 3", "normal 1 2 -3", "normal 1 1 1 x 1 1 1"]
        {
            assert!(limits.assign(&Kind::Text, wrong).is_err(), "{wrong:?}");
            assert_eq!(limits, before);
        }
    }

    #[test]
    fn a_password_stays_out_of_debug_output() {
        let mut password = Password::default();
        password.assign(&Kind::Text, "hunter2").unwrap();
        assert!(!format!("{password:?}").contains("hunter2"));
        assert!(password.assign(&Kind::Text, &"x".repeat(513)).is_err());
        assert_eq!(password.as_bytes(), b"hunter2");
    }

    proptest! {
        #[test]
        fn cpu_lists_survive_being_shown(cpus in proptest::collection::btree_set(0u16..200, 0..40)) {
            let list = CpuList(cpus.into_iter().collect());
            let mut again = CpuList::default();
            again.assign(&Kind::Text, &list.show()).unwrap();
            prop_assert_eq!(again, list);
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            for kind in [Kind::Integer { min: 0, max: 9 }, Kind::Bytes { min: 0, max: 9 }] {
                prop_assert!(kind.number(&text).is_err() || text.len() < 4);
            }
            let _ = assigned::<CpuList>(&text);
            let _ = assigned::<Vec<BindAddress>>(&text);
            let _ = assigned::<OutputLimits>(&text);
        }
    }
}
