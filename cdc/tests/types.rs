//! Values of every kind: what a record says of them is what the server writes, and a typed value is
//! written as it was read.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

mod server;
mod slot;

mod on_postgres {
    use annals::cdc::{Composite, Label};
    use annals_cdc::{
        Array, Body, Columns, FromColumn, Interval, Json, Moment, Multirange, Numeric, Range,
        Record, RowOp,
    };
    use bytes::Bytes;
    use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
    use uuid::Uuid;

    use super::server::Server;
    use super::slot;

    #[derive(Label, Debug)]
    enum Mood {
        Sad,
        Ok,
    }

    #[derive(Composite, Debug)]
    struct Pair {
        a: Option<i32>,
        b: Option<String>,
    }

    /// Types, each with expressions of values.
    const TYPES: [(&str, &[&str]); 43] = [
        ("boolean", &["true", "false", "random() < 0.5"]),
        ("smallint", &["-32768", "32767", "(random() * 1000)::int"]),
        (
            "integer",
            &["-2147483648", "2147483647", "(random() * 1e9)::int"],
        ),
        (
            "bigint",
            &["-9223372036854775808", "9223372036854775807", "0"],
        ),
        ("real", &["'3.4e38'", "'NaN'", "'-0'", "random()"]),
        (
            "double precision",
            &[
                "'2.2250738585072014e-308'",
                "'-Infinity'",
                "0.1",
                "random()",
            ],
        ),
        (
            "numeric",
            &[
                "'123456789012345678901234567890.123456789'",
                "'NaN'",
                "'Infinity'",
            ],
        ),
        (
            "numeric(5,2)",
            &["1.1", "-999.99", "(random() * 999)::numeric"],
        ),
        ("money", &["12.34", "-1"]),
        (
            "text",
            &[
                "''",
                "'NULL'",
                "E'a\\tb\\nc\\\\N'",
                "'größe 😀'",
                "md5(random()::text)",
            ],
        ),
        ("varchar(20)", &["'a,b'", "'\"quoted\"'"]),
        ("char(5)", &["'ab'"]),
        ("\"char\"", &["'x'"]),
        ("name", &["'a name'"]),
        (
            "bytea",
            &[
                "'\\x'",
                "'\\x00010203ff'",
                "decode(md5(random()::text), 'hex')",
            ],
        ),
        (
            "uuid",
            &[
                "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
                "gen_random_uuid()",
            ],
        ),
        (
            "date",
            &[
                "'2016-11-04'",
                "'infinity'",
                "'4713-01-01 BC'",
                "'5874897-12-31'",
            ],
        ),
        ("time", &["'24:00:00'", "'13:51:30.123456'", "'00:00'"]),
        ("timetz", &["'13:51:30.5+02'", "'00:00:00+14'"]),
        (
            "timestamp",
            &[
                "'infinity'",
                "'0044-03-15 00:00:00 BC'",
                "'2016-11-04 13:51:30.5'",
            ],
        ),
        (
            "timestamptz",
            &["'-infinity'", "'2016-11-04 13:51:30+02'", "now()"],
        ),
        ("interval", &["'P1Y2M3DT4H5M6.78S'", "'-1 days'", "'0'"]),
        ("json", &["'{\"a\":  1.10}'", "'null'"]),
        ("jsonb", &["'{\"b\":1e400}'", "'[1, null, \"x\"]'"]),
        ("xml", &["'<a b=\"c\"/>'"]),
        ("inet", &["'10.0.0.1/8'", "'::1'"]),
        ("cidr", &["'10.0.0.0/8'"]),
        ("macaddr", &["'08:00:2b:01:02:03'"]),
        ("bit(3)", &["B'101'"]),
        ("bit varying", &["B''", "B'10101'"]),
        ("int4range", &["'[1,5)'", "'empty'", "'(,7]'"]),
        ("numrange", &["'[1.1,2.2]'"]),
        (
            "tstzrange",
            &[
                "'[2020-01-01,)'",
                "'empty'",
                "'[2020-01-01 10:00+02,2020-01-02)'",
            ],
        ),
        ("int4multirange", &["'{}'", "'{[1,3),[5,7)}'", "'{(,)}'"]),
        (
            "daterange[]",
            &["array['[2020-01-01,2020-02-01)'::daterange, 'empty']"],
        ),
        (
            "integer[]",
            &["'{1,NULL,3}'", "'{}'", "'[0:1]={5,6}'", "'{{1,2},{3,4}}'"],
        ),
        (
            "text[]",
            &[
                "E'{a,\"b,c\",\"d\\\\\"e\",NULL,\"NULL\",\"\"}'",
                "array['größe', '\\', ' ']",
            ],
        ),
        ("numeric[]", &["'{1.10,NaN}'"]),
        ("point", &["'(1.5,-2)'"]),
        ("tsvector", &["'a:1 b:2'"]),
        ("mood[]", &["'{sad,ok}'"]),
        (
            "pair",
            &["row(1, E'x,\"y\" (\\\\)')", "row(null, '')", "row(7, null)"],
        ),
        (
            "pair[]",
            &["array[row(1, 'a b')::pair, null, row(null, '{}')::pair]"],
        ),
    ];

    #[test]
    fn a_record_says_what_the_server_writes() {
        let server = Server::start(&[]);
        server.database("types");
        let columns: Vec<_> = (0..TYPES.len())
            .map(|n| format!("c{n} {}", TYPES[n].0))
            .collect();
        server.psql(
            "types",
            &format!(
                "create type mood as enum ('sad', 'ok'); create type pair as (a int, b text);
                 create table t(id serial primary key, {});
                 create publication cdc_pub for all tables;
                 select pg_create_logical_replication_slot('types', 'pgoutput');",
                columns.join(", ")
            ),
        );
        // Every value of every type, and in between rows of null.
        let rows = TYPES.iter().map(|(_, values)| values.len()).max().unwrap();
        for row in 0..rows * 6 {
            let values = TYPES
                .iter()
                .enumerate()
                .map(|(n, (of, values))| match (row + n) % 7 {
                    6 => "null".to_owned(),
                    _ => format!("({})::{of}", values[row % values.len()]),
                });
            let values = values.collect::<Vec<_>>().join(", ");
            server.psql(
                "types",
                &format!("insert into t values (default, {values})"),
            );
        }
        // Written by the types' own functions: `true::text` is another text than that of a boolean.
        let hex = (0..TYPES.len())
            .map(|n| {
                format!(
                    "case when c{n} is null then 'null' else \
                     encode(convert_to(format('%s', c{n}), 'UTF8'), 'hex') end"
                )
            })
            .collect::<Vec<_>>()
            .join(" || '|' || ");
        let written = server.psql(
            "types",
            &format!("{} select {hex} from t order by id", slot::PINNED),
        );
        let records = slot::decoded(&server, "types", "types");
        assert_eq!(records.len(), rows * 6);
        for (record, line) in records.iter().zip(written.lines()) {
            let row = row(record);
            for (n, hex) in line.split('|').enumerate() {
                let wanted = (hex != "null").then(|| String::from_utf8(slot::bytes(hex)).unwrap());
                assert_eq!(
                    row.get(&format!("c{n}")),
                    Some(wanted.as_deref()),
                    "{}",
                    TYPES[n].0
                );
                typed(TYPES[n].0, wanted.as_deref());
            }
        }
    }

    fn row(record: &Record) -> &Columns {
        match &record.body {
            Body::Row(row) if row.op == RowOp::Insert => row.after.as_ref().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Read as its type and written again, it is the same text.
    fn typed(of: &str, text: Option<&str>) {
        match of {
            "boolean" => same::<bool>(text),
            "smallint" => same::<i16>(text),
            "integer" => same::<i32>(text),
            "bigint" => same::<i64>(text),
            "numeric" | "numeric(5,2)" => same::<Numeric>(text),
            "text" | "varchar(20)" => same::<String>(text),
            "bytea" => same::<Bytes>(text),
            "uuid" => same::<Uuid>(text),
            "timestamp" => same::<Moment>(text),
            "interval" => same::<Interval>(text),
            "text[]" => same::<Vec<Option<String>>>(text),
            "integer[]" => same::<Array<Option<i32>>>(text),
            "numeric[]" => same::<Vec<Numeric>>(text),
            "int4range" => same::<Range<i32>>(text),
            "numrange" => same::<Range<Numeric>>(text),
            "tstzrange" => same::<Range<DateTime<Utc>>>(text),
            "int4multirange" => same::<Multirange<i32>>(text),
            "daterange[]" => same::<Vec<Range<NaiveDate>>>(text),
            "mood[]" => same::<Vec<Mood>>(text),
            "pair" => same::<Pair>(text),
            "pair[]" => same::<Vec<Option<Pair>>>(text),
            "time" if text != Some("24:00:00") => same::<NaiveTime>(text),
            "timestamptz" if text != Some("-infinity") => same::<DateTime<Utc>>(text),
            "date" if text == Some("2016-11-04") => same::<NaiveDate>(text),
            "json" => drop(Option::<Json<serde_json::Value>>::from_column(text).unwrap()),
            _ => {}
        }
    }

    #[track_caller]
    fn same<T: FromColumn>(text: Option<&str>) {
        let value = Option::<T>::from_column(text).unwrap();
        assert_eq!(value.to_column().as_deref(), text);
    }
}
