//! Values in JSON become the texts that PostgreSQL writes for them.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;

/// What a JSON value means: the same number is a day, milliseconds or microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Semantic {
    /// What the JSON says.
    Plain,
    /// A text, also when it looks like a placeholder in base64.
    Text,
    /// A number as a text or a JSON number: what `decimal.handling.mode=string` writes.
    Numeric,
    /// Base64 of an unscaled number.
    Decimal {
        /// Its digits after the point.
        scale: u32,
    },
    /// A scale, and base64 of an unscaled number.
    VariableScaleDecimal,
    /// A floating-point number of 4 bytes.
    Float4,
    /// A floating-point number of 8 bytes.
    Float8,
    /// Base64 of bytes.
    Bytes,
    /// Days since 1970.
    Days,
    /// Time of day in units of so many nanoseconds.
    Time(i64),
    /// Time since 1970 in units of so many nanoseconds.
    Timestamp(i64),
    /// A time with its zone, as in RFC 3339.
    ZonedTimestamp,
    /// A time of day with its zone.
    ZonedTime,
    /// A date or a time of day as a text that ends in `Z`.
    Iso,
    /// A time as in RFC 3339, of a column without a zone.
    IsoTimestamp,
}

/// The name and the meaning of a column.
pub type ColumnType = (Arc<str>, Semantic);

const MILLIS: i64 = 1_000_000;
const MICROS: i64 = 1_000;

impl Semantic {
    /// What a schema of Kafka Connect says: the name of a semantic type or else a plain type, and
    /// its scale.
    ///
    /// ```
    /// use annals_cdc::debezium::Semantic;
    ///
    /// assert_eq!(Semantic::of_schema("io.debezium.time.Date", None), Semantic::Days);
    /// assert_eq!(Semantic::of_schema("bytes", None), Semantic::Bytes);
    /// ```
    pub fn of_schema(name: &str, scale: Option<u32>) -> Semantic {
        match name {
            "org.apache.kafka.connect.data.Decimal" => match scale {
                Some(scale) => Semantic::Decimal { scale },
                None => Semantic::Numeric,
            },
            "io.debezium.data.VariableScaleDecimal" => Semantic::VariableScaleDecimal,
            "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => Semantic::Days,
            "io.debezium.time.Time" | "org.apache.kafka.connect.data.Time" => {
                Semantic::Time(MILLIS)
            }
            "io.debezium.time.MicroTime" => Semantic::Time(MICROS),
            "io.debezium.time.NanoTime" => Semantic::Time(1),
            "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp" => {
                Semantic::Timestamp(MILLIS)
            }
            "io.debezium.time.MicroTimestamp" => Semantic::Timestamp(MICROS),
            "io.debezium.time.NanoTimestamp" => Semantic::Timestamp(1),
            "io.debezium.time.ZonedTimestamp" => Semantic::ZonedTimestamp,
            "io.debezium.time.ZonedTime" => Semantic::ZonedTime,
            "io.debezium.time.IsoDate" | "io.debezium.time.IsoTime" => Semantic::Iso,
            "io.debezium.time.IsoTimestamp" => Semantic::IsoTimestamp,
            "float" | "float32" => Semantic::Float4,
            "double" | "float64" => Semantic::Float8,
            "bytes" => Semantic::Bytes,
            "string" => Semantic::Text,
            _ => Semantic::Plain,
        }
    }

    /// What the name of a PostgreSQL type says of its JSON.
    ///
    /// ```
    /// use annals_cdc::debezium::Semantic;
    ///
    /// assert_eq!(Semantic::of_type("bytea"), Semantic::Bytes);
    /// assert_eq!(Semantic::of_type("numeric"), Semantic::Numeric);
    /// ```
    pub fn of_type(name: &str) -> Semantic {
        let name = name.to_ascii_lowercase();
        // Neither a length nor that there are many of them changes what one is.
        let end = name.find(['(', '[']).unwrap_or(name.len());
        match name.get(..end).unwrap_or_default().trim() {
            "bytea" => Semantic::Bytes,
            "numeric" | "decimal" => Semantic::Numeric,
            "real" | "float4" => Semantic::Float4,
            "double precision" | "float8" => Semantic::Float8,
            "text" | "varchar" | "character varying" | "char" | "character" | "bpchar" => {
                Semantic::Text
            }
            _ => Semantic::Plain,
        }
    }
}

/// The text of a value; nothing for null.
pub(super) fn text(value: &RawValue, semantic: Semantic) -> Result<Option<String>, String> {
    let json = value.get();
    if json == "null" {
        return Ok(None);
    }
    if json.starts_with('[') {
        return list(json, semantic).map(Some);
    }
    let text = match semantic {
        Semantic::Float4 => float(json, Float::Four)?,
        Semantic::Float8 => float(json, Float::Eight)?,
        Semantic::Iso => string(json)?.trim_end_matches('Z').to_owned(),
        Semantic::IsoTimestamp => iso_timestamp(&string(json)?)?,
        Semantic::Plain | Semantic::Text => plain(json)?,
        Semantic::Numeric => numeric(json)?,
        Semantic::Decimal { scale } => decimal(&string(json)?, scale)?,
        Semantic::VariableScaleDecimal => {
            #[derive(Deserialize)]
            struct Scaled {
                scale: u32,
                value: String,
            }
            let scaled: Scaled = serde_json::from_str(json).map_err(|error| error.to_string())?;
            decimal(&scaled.value, scaled.scale)?
        }
        Semantic::Bytes => {
            let hex = bytes(&string(json)?)?;
            let hex: String = hex.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("\\x{hex}")
        }
        Semantic::Days => days(number(json)?)?,
        Semantic::Time(unit) => time_of_day(number(json)?, unit)?,
        Semantic::Timestamp(unit) => timestamp(number(json)?, unit)?,
        Semantic::ZonedTimestamp => zoned_timestamp(&string(json)?)?,
        Semantic::ZonedTime => zoned_time(&string(json)?),
    };
    Ok(Some(text))
}

/// What a JSON value is as text: numbers digit for digit, lists as arrays of PostgreSQL.
fn plain(json: &str) -> Result<String, String> {
    Ok(match json.as_bytes().first() {
        Some(b'"') => string(json)?,
        Some(b't') => "t".to_owned(),
        Some(b'f') => "f".to_owned(),
        Some(b'[') => list(json, Semantic::Plain)?,
        _ => json.to_owned(),
    })
}

/// A list as an array of PostgreSQL, of elements that mean this.
fn list(json: &str, semantic: Semantic) -> Result<String, String> {
    let items: Vec<&RawValue> = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let items = items.into_iter().map(|item| element(item, semantic));
    Ok(format!(
        "{{{}}}",
        items.collect::<Result<Vec<_>, _>>()?.join(",")
    ))
}

/// A number as PostgreSQL writes it: the shortest digits that are read as the same.
fn float(json: &str, size: Float) -> Result<String, String> {
    if json.starts_with('"') {
        return string(json);
    }
    let no_number = || format!("`{json}` is no number");
    let shortest = match size {
        Float::Four => format!("{:e}", json.parse::<f32>().map_err(|_| no_number())?),
        Float::Eight => format!("{:e}", json.parse::<f64>().map_err(|_| no_number())?),
    };
    let (digits, exponent) = shortest.split_once('e').ok_or_else(no_number)?;
    let exponent: i32 = exponent.parse().map_err(|_| no_number())?;
    if exponent < -4 || exponent >= size.digits() {
        let sign = if exponent < 0 { '-' } else { '+' };
        return Ok(format!("{digits}e{sign}{:02}", exponent.abs()));
    }
    Ok(match size {
        Float::Four => json.parse::<f32>().map_err(|_| no_number())?.to_string(),
        Float::Eight => json.parse::<f64>().map_err(|_| no_number())?.to_string(),
    })
}

/// The floating-point types.
#[derive(Clone, Copy)]
enum Float {
    Four,
    Eight,
}

impl Float {
    /// Numbers with more digits before the point are written with an exponent.
    const fn digits(self) -> i32 {
        match self {
            Float::Four => 6,
            Float::Eight => 15,
        }
    }
}

/// An element of an array, quoted where PostgreSQL quotes it.
fn element(item: &RawValue, semantic: Semantic) -> Result<String, String> {
    let json = item.get();
    let Some(text) = text(item, semantic)? else {
        return Ok("NULL".to_owned());
    };
    let is_list = json.starts_with('[');
    let needs_quotes = text.is_empty()
        || text.eq_ignore_ascii_case("null")
        || text.contains(|c: char| c.is_ascii_whitespace() || "{},\"\\".contains(c));
    if is_list || !needs_quotes {
        return Ok(text);
    }
    let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
    Ok(format!("\"{quoted}\""))
}

pub(super) fn string(json: &str) -> Result<String, String> {
    serde_json::from_str(json).map_err(|error| format!("`{json}` is no text: {error}"))
}

fn number(json: &str) -> Result<i64, String> {
    json.parse()
        .map_err(|_| format!("`{json}` is no whole number"))
}

pub(super) fn bytes(base64: &str) -> Result<Vec<u8>, String> {
    STANDARD
        .decode(base64)
        .map_err(|error| format!("`{base64}` is no base64: {error}"))
}

fn numeric(json: &str) -> Result<String, String> {
    let text = if json.starts_with('"') {
        string(json)?
    } else {
        json.to_owned()
    };
    let is_number = !text.is_empty()
        && text.bytes().any(|byte| byte.is_ascii_digit())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    if is_number || matches!(&*text, "NaN" | "Infinity" | "-Infinity") {
        return Ok(text);
    }
    Err(format!(
        "`{text}` is a decimal in base64 without its scale: give the connector \
         `decimal.handling.mode=string`, or say the scale with `columns`"
    ))
}

/// An unscaled number in two's complement, most significant byte first, with its point.
fn decimal(base64: &str, scale: u32) -> Result<String, String> {
    let mut bytes = bytes(base64)?;
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    if negative {
        let mut carry = true;
        for byte in bytes.iter_mut().rev() {
            let (sum, overflow) = (!*byte).overflowing_add(u8::from(carry));
            *byte = sum;
            carry = overflow;
        }
    }
    // Digits, least significant first.
    let mut digits = vec![0_u8];
    for byte in bytes {
        let mut carry = u32::from(byte);
        for digit in &mut digits {
            let value = u32::from(*digit) * 256 + carry;
            *digit = (value % 10) as u8;
            carry = value / 10;
        }
        while carry > 0 {
            digits.push((carry % 10) as u8);
            carry /= 10;
        }
    }
    let scale = scale as usize;
    if scale > 16_383 {
        return Err(format!("a decimal with {scale} digits after its point"));
    }
    while digits.len() <= scale {
        digits.push(0);
    }
    let mut text = String::new();
    if negative {
        text.push('-');
    }
    for (left, digit) in digits.iter().enumerate().rev() {
        text.push(char::from(b'0' + digit));
        if left == scale && scale > 0 {
            text.push('.');
        }
    }
    Ok(text)
}

fn days(days: i64) -> Result<String, String> {
    let date = TimeDelta::try_days(days)
        .and_then(|since| NaiveDate::default().checked_add_signed(since))
        .ok_or_else(|| format!("{days} days after 1970 are no date"))?;
    Ok(of_era(date, ""))
}

/// A date and what follows it, with `BC` at the end of years before 1.
fn of_era(date: NaiveDate, rest: &str) -> String {
    use chrono::Datelike as _;
    let (era, year) = date.year_ce();
    let text = format!("{year:04}-{:02}-{:02}{rest}", date.month(), date.day());
    if era { text } else { format!("{text} BC") }
}

fn nanoseconds(count: i64, unit: i64) -> Result<i128, String> {
    Ok(i128::from(count) * i128::from(unit))
}

fn fraction(nanos: u32) -> String {
    let micros = nanos / 1_000;
    if micros == 0 {
        return String::new();
    }
    format!(".{micros:06}").trim_end_matches('0').to_owned()
}

/// The longest time that MySQL has, in seconds: its times of day are spans as well.
const TIME_SECONDS_MAX: i128 = 838 * 3_600 + 59 * 60 + 59;

fn time_of_day(count: i64, unit: i64) -> Result<String, String> {
    let nanos = nanoseconds(count, unit)?;
    let sign = if nanos < 0 { "-" } else { "" };
    let seconds = nanos.abs() / 1_000_000_000;
    let rest = (nanos.abs() % 1_000_000_000) as u32;
    if seconds > TIME_SECONDS_MAX {
        return Err(format!("{nanos} nanoseconds are no time of a day"));
    }
    let hours = seconds / 3_600;
    let minutes = seconds / 60 % 60;
    let seconds = seconds % 60;
    Ok(format!(
        "{sign}{hours:02}:{minutes:02}:{seconds:02}{}",
        fraction(rest)
    ))
}

fn moment(count: i64, unit: i64) -> Result<DateTime<Utc>, String> {
    let nanos = nanoseconds(count, unit)?;
    let seconds = i64::try_from(nanos.div_euclid(1_000_000_000));
    let rest = nanos.rem_euclid(1_000_000_000) as u32;
    seconds
        .ok()
        .and_then(|seconds| DateTime::from_timestamp(seconds, rest))
        .ok_or_else(|| format!("{nanos} nanoseconds after 1970 are no time"))
}

fn timestamp(count: i64, unit: i64) -> Result<String, String> {
    match count {
        // What the connector writes for infinity, and for its negative.
        9_223_372_036_825_200_000 | i64::MAX => return Ok("infinity".to_owned()),
        -9_223_372_036_832_400_000 | i64::MIN => return Ok("-infinity".to_owned()),
        _ => {}
    }
    Ok(stamped(moment(count, unit)?, ""))
}

fn stamped(moment: DateTime<Utc>, zone: &str) -> String {
    let time = format!(
        " {}{}{zone}",
        moment.format("%H:%M:%S"),
        fraction(moment.timestamp_subsec_nanos())
    );
    of_era(moment.date_naive(), &time)
}

fn zoned_timestamp(text: &str) -> Result<String, String> {
    if matches!(text, "infinity" | "-infinity") {
        return Ok(text.to_owned());
    }
    let moment = DateTime::parse_from_rfc3339(text)
        .map_err(|error| format!("`{text}` is no time with a zone: {error}"))?;
    Ok(stamped(moment.with_timezone(&Utc), "+00"))
}

fn iso_timestamp(text: &str) -> Result<String, String> {
    if matches!(text, "infinity" | "-infinity") {
        return Ok(text.to_owned());
    }
    let moment = DateTime::parse_from_rfc3339(text)
        .map_err(|error| format!("`{text}` is no time: {error}"))?;
    Ok(stamped(moment.with_timezone(&Utc), ""))
}

fn zoned_time(text: &str) -> String {
    match text.strip_suffix('Z') {
        Some(time) => format!("{time}+00"),
        None => text.to_owned(),
    }
}

/// The moment of an envelope's source.
pub(super) fn source_time(micros: Option<i64>, millis: Option<i64>) -> Option<DateTime<Utc>> {
    let of_millis = || millis.and_then(DateTime::from_timestamp_millis);
    micros
        .and_then(DateTime::from_timestamp_micros)
        .or_else(of_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, semantic: Semantic, expected: &str) {
        let value = RawValue::from_string(json.to_owned()).unwrap();
        assert_eq!(text(&value, semantic), Ok(Some(expected.to_owned())));
    }

    #[test]
    fn values_become_the_texts_of_postgresql() {
        check(
            "12345678901234567890123",
            Semantic::Plain,
            "12345678901234567890123",
        );
        check("1.10", Semantic::Plain, "1.10");
        check(
            r#"["a","b,c",null,"NULL",""]"#,
            Semantic::Plain,
            r#"{a,"b,c",NULL,"NULL",""}"#,
        );
        check("[[1,2],[3,4]]", Semantic::Plain, "{{1,2},{3,4}}");
        check(r#""AA==""#, Semantic::Decimal { scale: 2 }, "0.00");
        check(r#""gA==""#, Semantic::Decimal { scale: 0 }, "-128");
        check(r#""/w==""#, Semantic::Decimal { scale: 3 }, "-0.001");
        check("-719163", Semantic::Days, "0001-12-31 BC");
        check(
            "-1",
            Semantic::Timestamp(MICROS),
            "1969-12-31 23:59:59.999999",
        );
        check("86400000000", Semantic::Time(MICROS), "24:00:00");
        check("3020399000000", Semantic::Time(MICROS), "838:59:59");
        check("-5400500000", Semantic::Time(MICROS), "-01:30:00.5");
        check(r#""11:51:30.5Z""#, Semantic::ZonedTime, "11:51:30.5+00");
        check(r#""NaN""#, Semantic::Numeric, "NaN");
        check(r#"["AQ==",null]"#, Semantic::Bytes, r#"{"\\x01",NULL}"#);
        check(
            r#"[["AQ=="],["Ag=="]]"#,
            Semantic::Decimal { scale: 1 },
            "{{0.1},{0.2}}",
        );
        check(
            "[0]",
            Semantic::Timestamp(MICROS),
            r#"{"1970-01-01 00:00:00"}"#,
        );
    }

    #[test]
    fn floats_become_the_texts_of_postgresql() {
        let rows = [
            ("1.0", "1", "1"),
            ("-0.0", "-0", "-0"),
            ("0.1", "0.1", "0.1"),
            ("1.0E-4", "0.0001", "0.0001"),
            ("1.5E-5", "1.5e-05", "1.5e-05"),
            ("123456", "123456", "123456"),
            ("1000000.0", "1e+06", "1000000"),
            ("1.234567E8", "1.234567e+08", "123456700"),
            ("123456789012345", "1.2345679e+14", "123456789012345"),
            ("1.0E15", "1e+15", "1e+15"),
            (r#""-Infinity""#, "-Infinity", "-Infinity"),
        ];
        for (json, four, eight) in rows {
            check(json, Semantic::Float4, four);
            check(json, Semantic::Float8, eight);
        }
        check("[1.0,1.5]", Semantic::Float8, "{1,1.5}");
    }

    #[test]
    fn times_in_iso_form_become_the_texts_of_postgresql() {
        check(r#""2016-11-04Z""#, Semantic::Iso, "2016-11-04");
        check(r#""13:51:30.5Z""#, Semantic::Iso, "13:51:30.5");
        let text = r#""2016-11-04T13:51:30.123456Z""#;
        check(text, Semantic::IsoTimestamp, "2016-11-04 13:51:30.123456");
    }

    #[test]
    fn names_of_types_say_what_one_value_is() {
        for (name, semantic) in [
            ("numeric(10,2)", Semantic::Numeric),
            ("bytea[]", Semantic::Bytes),
            ("character varying(20)", Semantic::Text),
            ("DOUBLE PRECISION", Semantic::Float8),
            ("timestamp(3) without time zone", Semantic::Plain),
        ] {
            assert_eq!(Semantic::of_type(name), semantic, "{name}");
        }
    }

    #[test]
    fn a_decimal_without_its_scale_names_the_setting() {
        let value = RawValue::from_string(r#""bg==""#.to_owned()).unwrap();
        let error = text(&value, Semantic::Numeric).unwrap_err();
        assert!(error.contains("decimal.handling.mode=string"), "{error}");
    }
}
