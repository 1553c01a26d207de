-- version 2: events are found by their tags, also those that were recorded before.

create table annals_tags (
    key integer primary key,
    name text not null unique
) strict;

create table annals_event_tags (
    tag integer not null,
    position integer not null,
    primary key (tag, position)
) strict, without rowid;

create temp table annals_split as
with recursive split (position, name, rest) as (
    select position, null, tags || char(10) from annals_events where tags is not null
    union all
    select position, substr(rest, 1, instr(rest, char(10)) - 1), substr(rest, instr(rest, char(10)) + 1)
    from split where rest <> ''
)
select position, name from split where name is not null;

insert into annals_tags (name) select distinct name from temp.annals_split order by name;

insert into annals_event_tags (tag, position)
select annals_tags.key, annals_split.position
from temp.annals_split join annals_tags on annals_tags.name = annals_split.name;

drop table temp.annals_split;
