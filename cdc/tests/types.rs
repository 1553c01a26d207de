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
    use annals_core::conformance::rounds;
    use bytes::Bytes;
    use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
    use serde_json::Value;
    use uuid::Uuid;

    use super::server::Server;
    use super::slot;

    #[derive(Label, Debug)]
    enum Mood {
        Sad,
        Ok,
    }

    #[derive(Composite, Debug, PartialEq)]
    struct Pair {
        a: Option<i32>,
        b: Option<String>,
    }

    #[derive(Composite, Debug)]
    struct Nested {
        p: Option<Pair>,
        n: Option<Vec<Option<i32>>>,
        j: Option<String>,
    }

    /// Types, each with expressions of values.
    const TYPES: [(&str, &[&str]); 81] = [
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
        (
            "real",
            &[
                "'3.4e38'",
                "'NaN'",
                "'-0'",
                "random()",
                "'1234567'",
                "'999999'",
            ],
        ),
        (
            "double precision",
            &[
                "'2.2250738585072014e-308'",
                "'-Infinity'",
                "'1e15'",
                "'-123456789012345.6'",
                "'0.00001'",
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
                "'-Infinity'",
                "repeat('9', 1000)::numeric",
                "('-0.' || repeat('0', 999) || '1')::numeric",
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
                "(select decode(string_agg(lpad(to_hex(g), 2, '0'), '' order by g), 'hex') \
                 from generate_series(0, 255) g)",
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
                "'-infinity'",
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
            &[
                "'-infinity'",
                "'2016-11-04 13:51:30+02'",
                "now()",
                "'4713-11-24 00:00:00+00 BC'",
                "'294276-12-31 23:59:59.999999+00'",
            ],
        ),
        (
            "interval",
            &[
                "'P1Y2M3DT4H5M6.78S'",
                "'-1 days'",
                "'0'",
                "'-178000000 years'",
                "'1 mon -2 days +03:04:05.000006'",
                "'-00:00:00.000001'",
            ],
        ),
        (
            "json",
            &[
                "'{\"a\":  1.10}'",
                "'null'",
                "E'{\"b\" :1,\\n\"a\":2, \"b\":3}'",
            ],
        ),
        (
            "jsonb",
            &[
                "'{\"b\":1e400}'",
                "'[1, null, \"x\"]'",
                "E'{\"b\" :1.50,\\n\"a\":2, \"b\":3}'",
            ],
        ),
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
        ("numeric[]", &["'{1e400,-Infinity}'"]),
        ("numeric(60,30)", &["'-0.000000000000000000000000000001'"]),
        ("oid", &["4294967295", "0"]),
        ("regclass", &["'pg_class'"]),
        ("pg_lsn", &["'16/B374D848'"]),
        ("xid8", &["'18446744073709551615'"]),
        ("macaddr8", &["'08:00:2b:01:02:03:04:05'"]),
        ("jsonpath", &["'$.a[*] ? (@ > 1)'"]),
        ("tsquery", &["'a & !b'"]),
        ("line", &["'{1,2,3}'"]),
        ("lseg", &["'[(0,0),(1,1)]'"]),
        ("box", &["'(2,2),(0,0)'"]),
        ("path", &["'((0,0),(1,1))'", "'[(0,0),(1,1)]'"]),
        ("polygon", &["'((0,0),(1,1),(1,0))'"]),
        ("circle", &["'<(1,2),3>'"]),
        ("boolean[]", &["'{t,f,NULL}'"]),
        ("double precision[]", &["'{1e300,NaN,-Infinity,-0}'"]),
        ("bytea[]", &["array['\\x00ff'::bytea, '\\x', null]"]),
        ("uuid[]", &["array[gen_random_uuid(), null]"]),
        ("date[]", &["'{2020-02-29,NULL}'"]),
        ("time[]", &["'{23:59:59.999999}'"]),
        (
            "timestamptz[]",
            &["'{2020-01-01 00:00:00.000001+00,1999-12-31 23:59:59+14}'"],
        ),
        ("interval[]", &["'{1 mon -2 days,00:00:01}'"]),
        ("json[]", &["array['{\"a\": \"b,c\"}'::json, null]"]),
        (
            "int8range",
            &["'[-9223372036854775808,9223372036854775807)'"],
        ),
        ("tsrange", &["'[-infinity,2020-01-01]'", "'(,infinity)'"]),
        ("nummultirange", &["'{[1.10,2),(NaN,)}'", "'{}'"]),
        ("datemultirange", &["'{[2020-01-01,2020-02-01)}'"]),
        (
            "int4multirange[]",
            &["array['{[1,3)}'::int4multirange, '{}']"],
        ),
        ("positive", &["7", "1.50"]),
        ("address", &["'a@b, c'"]),
        ("positive[]", &["'{1.50,NULL,7}'"]),
        ("moods", &["'{sad,NULL}'", "'{}'"]),
        ("odd", &["'a b'", "'it''s'", "'\"'", "'NULL'"]),
        ("odd[]", &["array['a b', 'c,d', '\"', 'NULL', '\\', null]"]),
        ("address[]", &["array['a'::address, null, '']"]),
        ("mood", &["'sad'", "'ok'"]),
        (
            "nested",
            &[
                "row(row(1, E'a\"b'), '{1,NULL}', '{\"k\": 1}')",
                "row(null, null, null)",
            ],
        ),
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
                 create type nested as (p pair, n int[], j jsonb);
                 create domain positive as numeric check (value > 0);
                 create domain address as text; create domain moods as mood[];
                 create type odd as enum ('a b', 'c,d', '\"', 'NULL', '\\', 'it''s');
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
                    "case when c{n}::text is null then 'null' else \
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
            "timestamptz" => match text {
                // Later than a `Moment` can be.
                Some(text) if text.starts_with("294276") => same::<String>(Some(text)),
                Some(text) if text.contains("infinity") => same::<Moment>(Some(text)),
                text => {
                    same::<DateTime<Utc>>(text);
                    Option::<Moment>::from_column(text).unwrap();
                }
            },
            "date" if text.is_none_or(|text| text.len() == 10 || text.ends_with(" BC")) => {
                same::<NaiveDate>(text);
            }
            "oid" => same::<u32>(text),
            "xid8" => same::<u64>(text),
            "real" => same::<f32>(text),
            "double precision" => same::<f64>(text),
            "double precision[]" => same::<Vec<f64>>(text),
            "boolean[]" => same::<Vec<Option<bool>>>(text),
            "bytea[]" => same::<Vec<Option<Bytes>>>(text),
            "uuid[]" => same::<Vec<Option<Uuid>>>(text),
            "date[]" => same::<Vec<Option<NaiveDate>>>(text),
            "time[]" => same::<Vec<NaiveTime>>(text),
            "timestamptz[]" => same::<Vec<DateTime<Utc>>>(text),
            "interval[]" => same::<Vec<Interval>>(text),
            "json[]" => drop(Vec::<Option<Json<Value>>>::from_column(text.or(Some("{}"))).unwrap()),
            "int8range" => same::<Range<i64>>(text),
            "tsrange" => same::<Range<Moment>>(text),
            "nummultirange" => same::<Multirange<Numeric>>(text),
            "datemultirange" => same::<Multirange<NaiveDate>>(text),
            "int4multirange[]" => same::<Vec<Multirange<i32>>>(text),
            "positive" => same::<Numeric>(text),
            "positive[]" => same::<Vec<Option<Numeric>>>(text),
            "moods" => same::<Vec<Option<Mood>>>(text),
            "odd[]" => same::<Vec<Option<String>>>(text),
            "address" => same::<String>(text),
            "address[]" => same::<Vec<Option<String>>>(text),
            "mood" => same::<Mood>(text),
            "nested" => same::<Nested>(text),
            "json" => drop(Option::<Json<Value>>::from_column(text).unwrap()),
            // Of whatever type it is, the text can be had.
            _ => same::<String>(text),
        }
    }

    /// Values at random, the same for the same number.
    struct Random(u64);

    impl Random {
        fn number(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }

        fn below(&mut self, end: u64) -> u64 {
            self.number() % end
        }

        fn or_null<T>(&mut self, make: impl FnOnce(&mut Random) -> T) -> Option<T> {
            (self.below(5) > 0).then(|| make(self))
        }

        fn many<T>(&mut self, make: impl FnMut(&mut Random) -> T) -> Vec<T> {
            let mut make = make;
            let count = self.below(5);
            (0..count).map(|_| make(self)).collect()
        }

        /// With everything that is quoted somewhere, and a few bytes more.
        fn text(&mut self) -> String {
            const PARTS: [&str; 24] = [
                "\"", "\\", "{", "}", ",", "(", ")", "[", "]", " ", "\t", "\n", "'", "''", "NULL",
                "null", "é", "😀", "\u{1}", "\u{b}", "a", "Z", "empty", "\r",
            ];
            let count = self.below(7);
            (0..count)
                .map(|_| PARTS[self.below(PARTS.len() as u64) as usize])
                .collect()
        }

        fn pair(&mut self) -> Pair {
            Pair {
                a: self.or_null(|random| random.number() as i32),
                b: self.or_null(Random::text),
            }
        }

        fn numeric(&mut self) -> Numeric {
            let sign = if self.below(2) == 0 { "" } else { "-" };
            let whole: String = (0..=self.below(40))
                .map(|_| char::from(b'1' + self.below(9) as u8))
                .collect();
            let fraction: String = (0..=self.below(30))
                .map(|_| char::from(b'0' + self.below(10) as u8))
                .collect();
            Numeric::from_column(Some(&format!("{sign}{whole}.{fraction}"))).unwrap()
        }

        fn float(&mut self) -> f64 {
            let float = f64::from_bits(self.number());
            if float.is_nan() { 0.1 } else { float }
        }

        fn moment(&mut self) -> DateTime<Utc> {
            let micros = self.below(400_000_000_000_000_000) as i64 - 60_000_000_000_000_000;
            DateTime::from_timestamp_micros(micros).unwrap()
        }

        fn bytes(&mut self) -> Bytes {
            self.many(|random| random.number() as u8).into()
        }

        fn matrix(&mut self) -> Array<Option<i32>> {
            let (low, rows) = (self.below(9) as i64 - 4, 1 + self.below(3) as i64);
            let row = |random: &mut Random| {
                let value = |random: &mut Random| {
                    let value = random.or_null(|random| random.number() as i32);
                    value.map_or("NULL".to_owned(), |value| value.to_string())
                };
                format!("{{{},{}}}", value(random), value(random))
            };
            let rows_text: Vec<_> = (0..rows).map(|_| row(self)).collect();
            let bounds = match low {
                1 => String::new(),
                _ => format!("[{low}:{}][1:2]=", low + rows - 1),
            };
            let text = format!("{bounds}{{{}}}", rows_text.join(","));
            Array::from_column(Some(&text)).unwrap()
        }
    }

    /// One value of every kind that is made at random.
    #[derive(Debug, PartialEq)]
    struct Sample {
        texts: Vec<Option<String>>,
        matrix: Array<Option<i32>>,
        pair: Option<Pair>,
        pairs: Vec<Option<Pair>>,
        between: Range<String>,
        numeric: Numeric,
        numerics: Vec<Option<Numeric>>,
        float: f64,
        moment: DateTime<Utc>,
        moments: Vec<Range<DateTime<Utc>>>,
        local: NaiveDateTime,
        bytes: Option<Bytes>,
        bytes_many: Vec<Bytes>,
        id: Uuid,
        text: String,
    }

    /// The types of the columns, in the order of the fields.
    const COLUMNS: [&str; 15] = [
        "text[]",
        "int[]",
        "pair",
        "pair[]",
        "textrange",
        "numeric",
        "numeric[]",
        "double precision",
        "timestamptz",
        "tstzrange[]",
        "timestamp",
        "bytea",
        "bytea[]",
        "uuid",
        "text",
    ];

    impl Sample {
        fn random(random: &mut Random) -> Sample {
            let mut ends = [random.text(), random.text() + "\u{1F600}"];
            ends.sort();
            let range = format!("[{},{})", quoted(&ends[0]), quoted(&ends[1]));
            let is_range = ends[0] != ends[1];
            let moments = |random: &mut Random| {
                let (one, other) = (random.moment(), random.moment());
                let text = |of: DateTime<Utc>| quoted(&of.to_column().unwrap());
                let (from, to) = (one.min(other), one.max(other));
                match from == to {
                    true => "empty".to_owned(),
                    false => format!("[{},{})", text(from), text(to)),
                }
            };
            Sample {
                texts: random.many(|random| random.or_null(Random::text)),
                matrix: random.matrix(),
                pair: random.or_null(Random::pair),
                pairs: random.many(|random| random.or_null(Random::pair)),
                between: Range::from_column(Some(if is_range { &range } else { "empty" })).unwrap(),
                numeric: random.numeric(),
                numerics: random.many(|random| random.or_null(Random::numeric)),
                float: random.float(),
                moment: random.moment(),
                moments: random.many(|random| Range::from_column(Some(&moments(random))).unwrap()),
                local: random.moment().naive_utc(),
                bytes: random.or_null(Random::bytes),
                bytes_many: random.many(Random::bytes),
                id: Uuid::from_u128(u128::from(random.number()) << 64 | 7),
                text: random.text(),
            }
        }

        fn to_columns(&self) -> [Option<String>; COLUMNS.len()] {
            [
                self.texts.to_column(),
                self.matrix.to_column(),
                self.pair.to_column(),
                self.pairs.to_column(),
                self.between.to_column(),
                self.numeric.to_column(),
                self.numerics.to_column(),
                self.float.to_column(),
                self.moment.to_column(),
                self.moments.to_column(),
                self.local.to_column(),
                self.bytes.to_column(),
                self.bytes_many.to_column(),
                self.id.to_column(),
                self.text.to_column(),
            ]
        }

        fn from_columns(of: &[Option<&str>]) -> Sample {
            Sample {
                texts: read(of[0]),
                matrix: read(of[1]),
                pair: read(of[2]),
                pairs: read(of[3]),
                between: read(of[4]),
                numeric: read(of[5]),
                numerics: read(of[6]),
                float: read(of[7]),
                moment: read(of[8]),
                moments: read(of[9]),
                local: read(of[10]),
                bytes: read(of[11]),
                bytes_many: read(of[12]),
                id: read(of[13]),
                text: read(of[14]),
            }
        }
    }

    fn read<T: FromColumn>(text: Option<&str>) -> T {
        T::from_column(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    /// As an end of a range.
    fn quoted(text: &str) -> String {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\"\""))
    }

    #[test]
    fn random_values_come_as_the_server_writes_them() {
        let server = Server::start(&[]);
        server.database("random");
        let columns: Vec<_> = (0..COLUMNS.len())
            .map(|n| format!("c{n} {}", COLUMNS[n]))
            .collect();
        server.psql(
            "random",
            &format!(
                "create type pair as (a int, b text);
                 create type textrange as range (subtype = text, collation = \"C\");
                 create table t(id serial primary key, {});
                 create publication cdc_pub for all tables;
                 select pg_create_logical_replication_slot('random', 'pgoutput');",
                columns.join(", ")
            ),
        );
        let mut random = Random(15);
        let samples: Vec<_> = (0..rounds(500, 10_000))
            .map(|_| Sample::random(&mut random))
            .collect();
        let literal = |value: Option<String>| match value {
            Some(text) => format!("'{}'", text.replace('\'', "''")),
            None => "null".to_owned(),
        };
        for some in samples.chunks(100) {
            let rows = some.iter().map(|sample| {
                let values = sample.to_columns().map(literal);
                format!("(default, {})", values.join(", "))
            });
            let rows = rows.collect::<Vec<_>>().join(",\n");
            server.psql("random", &format!("insert into t values {rows}"));
        }
        let hex = (0..COLUMNS.len())
            .map(|n| {
                format!(
                    "case when c{n}::text is null then 'null' else \
                     encode(convert_to(format('%s', c{n}), 'UTF8'), 'hex') end"
                )
            })
            .collect::<Vec<_>>()
            .join(" || '|' || ");
        let written = server.psql(
            "random",
            &format!("{} select {hex} from t order by id", slot::PINNED),
        );
        let records = slot::decoded(&server, "random", "random");
        assert_eq!(records.len(), samples.len());
        assert_eq!(written.lines().count(), samples.len());
        for ((record, line), sample) in records.iter().zip(written.lines()).zip(&samples) {
            let row = row(record);
            let values: Vec<_> = (0..COLUMNS.len())
                .map(|n| row.get(&format!("c{n}")).unwrap())
                .collect();
            for (n, hex) in line.split('|').enumerate() {
                let wanted = (hex != "null").then(|| String::from_utf8(slot::bytes(hex)).unwrap());
                assert_eq!(values[n], wanted.as_deref(), "{}", COLUMNS[n]);
            }
            // What was written as typed values is read as the same ones, and written again.
            let back = Sample::from_columns(&values);
            assert_eq!(back, *sample);
            let again = back.to_columns();
            for (n, value) in values.iter().enumerate() {
                let again = again[n].as_deref();
                assert!(
                    again == *value || is_same_number(COLUMNS[n], again, *value),
                    "{}: {again:?}, the server wrote {value:?}",
                    COLUMNS[n]
                );
            }
        }
    }

    /// Where two shortest texts of a number are possible, the server keeps away from the bounds of
    /// its interval (its Ryu does not accept them), and writes a digit more than Rust does.
    fn is_same_number(column: &str, left: Option<&str>, right: Option<&str>) -> bool {
        let double = |text: Option<&str>| text?.parse::<f64>().ok().map(f64::to_bits);
        let real = |text: Option<&str>| text?.parse::<f32>().ok().map(f32::to_bits);
        match column {
            "double precision" => left.is_some() && double(left) == double(right),
            "real" => left.is_some() && real(left) == real(right),
            _ => false,
        }
    }

    #[track_caller]
    fn same<T: FromColumn>(text: Option<&str>) {
        let value = Option::<T>::from_column(text).unwrap();
        assert_eq!(value.to_column().as_deref(), text);
    }
}
