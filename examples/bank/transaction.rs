//! A file of bank transactions, as published for the PKDD'99 Discovery Challenge: one row, exactly.
//!
//! Fields are separated by semicolons, each quoted or not; dates are YYMMDD of the twentieth
//! century; amounts are decimal crowns.

use annals::chrono::{DateTime, NaiveDate, Utc};

use crate::account::{Direction, Slip};
use crate::money::{Money, NoAmount};

/// No row is longer; what is, is not read into memory.
pub(crate) const LINE_BYTES_MAX: usize = 64 * 1024;

/// The first line of such a file.
pub(crate) const HEADER: [&str; 10] = [
    "trans_id",
    "account_id",
    "date",
    "type",
    "operation",
    "amount",
    "balance",
    "k_symbol",
    "bank",
    "account",
];

/// A transaction of one account, without the column `balance`, which follows from the amounts.
#[derive(Debug, PartialEq)]
pub(crate) struct Transaction {
    pub(crate) account_id: u64,
    pub(crate) date: NaiveDate,
    pub(crate) direction: Direction,
    pub(crate) amount: Money,
    pub(crate) slip: Slip,
}

impl Transaction {
    /// When it happened: the bank knows the day, so the moment that it began.
    pub(crate) fn occurred_at(&self) -> DateTime<Utc> {
        self.date.and_time(annals::chrono::NaiveTime::MIN).and_utc()
    }
}

/// Why a row cannot be read.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum BadRow {
    #[error("it is not UTF-8")]
    NotText,
    #[error("it has more than {LINE_BYTES_MAX} bytes")]
    TooLong,
    #[error("it has {0} fields instead of {expected}", expected = HEADER.len())]
    Fields(usize),
    #[error("{field} `{}` is not a number", text.escape_debug())]
    Number { field: &'static str, text: String },
    #[error("date `{}` is not a day as YYMMDD", .0.escape_debug())]
    Date(String),
    #[error("type `{}` is neither PRIJEM nor VYDAJ nor VYBER", .0.escape_debug())]
    Type(String),
    #[error(transparent)]
    Amount(#[from] NoAmount),
    #[error("amount {0} is below nothing; the type says the direction")]
    Negative(Money),
}

/// Whether a line is the header.
pub(crate) fn is_header(line: &[u8]) -> bool {
    // Some programs put a byte order mark first.
    let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
    fields(line).is_ok_and(|fields| fields.iter().eq(HEADER))
}

/// Reads a row, without its line ending.
pub(crate) fn parse(row: &[u8]) -> Result<Transaction, BadRow> {
    let fields = fields(row)?;
    let all: Vec<&str> = fields.iter().collect();
    let [
        trans_id,
        account_id,
        date,
        kind,
        operation,
        amount,
        _balance,
        k_symbol,
        bank,
        account,
    ] = all[..]
    else {
        return Err(BadRow::Fields(all.len()));
    };
    let amount: Money = amount.parse()?;
    if amount < Money::ZERO {
        return Err(BadRow::Negative(amount));
    }
    let direction = match kind {
        "PRIJEM" => Direction::In,
        "VYDAJ" | "VYBER" => Direction::Out,
        other => return Err(BadRow::Type(other.to_owned())),
    };
    Ok(Transaction {
        account_id: number("account_id", account_id)?,
        date: day(date).ok_or_else(|| BadRow::Date(date.to_owned()))?,
        direction,
        amount,
        slip: Slip {
            trans_id: number("trans_id", trans_id)?,
            kind: kind.to_owned(),
            operation: operation.to_owned(),
            k_symbol: k_symbol.to_owned(),
            bank: bank.to_owned(),
            account: account.to_owned(),
        },
    })
}

fn number(field: &'static str, text: &str) -> Result<u64, BadRow> {
    text.parse().map_err(|_| BadRow::Number {
        field,
        text: text.to_owned(),
    })
}

/// The day that YYMMDD names.
pub(crate) fn day(text: &str) -> Option<NaiveDate> {
    if text.len() != 6 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let year = text[..2].parse::<i32>().ok()?;
    let month = text[2..4].parse().ok()?;
    let day = text[4..].parse().ok()?;
    NaiveDate::from_ymd_opt(1900 + year, month, day)
}

/// The fields of one line. A quoted field holds no line ending here, so that a quote which is not
/// closed spoils its own row alone.
fn fields(line: &[u8]) -> Result<csv::StringRecord, BadRow> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(b';')
        .has_headers(false)
        .flexible(true)
        .buffer_capacity(1024)
        .from_reader(line);
    let mut fields = csv::StringRecord::new();
    match reader.read_record(&mut fields) {
        Ok(_) => Ok(fields),
        // The only thing that can be wrong with bytes in memory, whose rows may have any length.
        Err(_) => Err(BadRow::NotText),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_may_be_omitted() {
        let quoted = concat!(
            r#"637742;2177;930105;"PRIJEM";"PREVOD Z UCTU";5123.00;5923.00;"#,
            r#""DUCHOD";"YZ";"62457513""#
        )
        .as_bytes();
        let bare = b"637742;2177;930105;PRIJEM;PREVOD Z UCTU;5123.00;5923.00;DUCHOD;YZ;62457513";
        let transaction = parse(quoted).unwrap();
        assert_eq!(transaction, parse(bare).unwrap());
        assert_eq!(transaction.amount, Money::crowns(5_123));
        assert_eq!(
            transaction.occurred_at().to_rfc3339(),
            "1993-01-05T00:00:00+00:00"
        );
    }

    #[test]
    fn what_the_bank_noted_is_kept_to_the_letter() {
        let slip = parse(br#"1;2;931231;VYBER;"a ""b""; c";0.07;0;" ";;"#)
            .unwrap()
            .slip;
        assert_eq!(
            (&*slip.kind, &*slip.operation, &*slip.k_symbol),
            ("VYBER", "a \"b\"; c", " ")
        );
    }

    #[test]
    fn the_header_is_known_with_and_without_quotes() {
        let bare = HEADER.join(";");
        let quoted = format!("\"{}\"", HEADER.join("\";\""));
        assert!(is_header(bare.as_bytes()) && is_header(quoted.as_bytes()));
        assert!(is_header(format!("\u{feff}{bare}").as_bytes()));
        assert!(!is_header(b"") && !is_header(b"trans_id;account_id"));
    }

    #[test]
    fn a_bad_row_says_what_is_wrong() {
        for (row, said) in [
            ("1;2;930101;PRIJEM;;1", "it has 6 fields instead of 10"),
            ("x;2;930101;PRIJEM;;1;;;;", "trans_id `x` is not a number"),
            ("1;;930101;PRIJEM;;1;;;;", "account_id `` is not a number"),
            (
                "1;2;930231;PRIJEM;;1;;;;",
                "date `930231` is not a day as YYMMDD",
            ),
            (
                "1;2;930101;prijem;;1;;;;",
                "type `prijem` is neither PRIJEM nor VYDAJ nor VYBER",
            ),
            (
                "1;2;930101;VYDAJ;;1.005;;;;",
                "`1.005` is not an amount in crowns and halers",
            ),
            (
                "1;2;930101;VYDAJ;;-1;;;;",
                "amount -1.00 is below nothing; the type says the direction",
            ),
            ("1;2;930101;\"VYDAJ;;1;;;;", "it has 4 fields instead of 10"),
            (
                "1;2;930101;\"VYDAJ\"x;;1;;;;",
                "type `VYDAJx` is neither PRIJEM nor VYDAJ nor VYBER",
            ),
        ] {
            assert_eq!(parse(row.as_bytes()).unwrap_err().to_string(), said);
        }
        assert_eq!(parse(b"\xFF"), Err(BadRow::NotText));
    }
}
