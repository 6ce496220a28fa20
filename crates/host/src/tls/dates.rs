//! From when until when a certificate is valid, and days in words.
//!
//! The handshake's own check of dates is the TLS library's. This one reads certificates of our own
//! files, to speak of their dates before a peer does.

use std::fmt;

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

/// Tags of DER (ITU-T X.690) that stand before what is looked for.
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Seconds in a day.
pub(crate) const DAY_S: i64 = 24 * 3600;

/// From when until when, in seconds since 1970-01-01 UTC; both moments belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before_s: i64,
    /// The last second.
    pub not_after_s: i64,
}

impl Validity {
    /// What the certificate says (RFC 5280 section 4.1.2.5); `None` if it is none.
    pub(crate) fn of(certificate: &[u8]) -> Option<Self> {
        let (certificate, _) = element(certificate, SEQUENCE)?;
        let (mut rest, _) = element(certificate, SEQUENCE)?;
        if let Some((_, after)) = element(rest, VERSION) {
            rest = after;
        }
        // The serial number, the signature's algorithm, the issuer.
        for tag in [INTEGER, SEQUENCE, SEQUENCE] {
            rest = element(rest, tag)?.1;
        }
        let (dates, _) = element(rest, SEQUENCE)?;
        let (not_before_s, dates) = moment(dates)?;
        let (not_after_s, _) = moment(dates)?;
        Some(Self {
            not_before_s,
            not_after_s,
        })
    }
}

/// The content of the first element, which must have this tag, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], mut rest) = bytes.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let mut len = usize::from(first);
    if first >= 0x80 {
        let (digits, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if digits.len() > size_of::<u32>() {
            return None;
        }
        len = digits
            .iter()
            .fold(0, |len, digit| len << 8 | usize::from(*digit));
        rest = after;
    }
    rest.split_at_checked(len)
}

fn moment(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let two = |text: &[u8]| -> Option<u8> { std::str::from_utf8(text).ok()?.parse().ok() };
    let (year, digits, rest) = match element(bytes, UTC_TIME) {
        Some((text, rest)) => {
            let year = i32::from(two(text.get(..2)?)?);
            let century = if year < 50 { 2000 } else { 1900 };
            (century + year, text.get(2..)?, rest)
        }
        None => {
            let (text, rest) = element(bytes, GENERALIZED_TIME)?;
            let year = 100 * i32::from(two(text.get(..2)?)?) + i32::from(two(text.get(2..4)?)?);
            (year, text.get(4..)?, rest)
        }
    };
    let part = |at: usize| two(digits.get(at..at + 2)?);
    let month = Month::try_from(part(0)?).ok()?;
    let date = Date::from_calendar_date(year, month, part(2)?).ok()?;
    let time = Time::from_hms(part(4)?, part(6)?, part(8)?).ok()?;
    let moment = PrimitiveDateTime::new(date, time).assume_utc();
    Some((moment.unix_timestamp(), rest))
}

/// A moment as people write it: `2026-11-21 17:05 UTC`.
#[derive(Clone, Copy, Debug)]
pub struct Moment(
    /// Seconds since 1970-01-01 UTC.
    pub i64,
);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(at) = OffsetDateTime::from_unix_timestamp(self.0) else {
            return write!(f, "{} seconds after 1970", self.0);
        };
        write!(
            f,
            "{}-{:02}-{:02} {:02}:{:02} UTC",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute()
        )
    }
}
