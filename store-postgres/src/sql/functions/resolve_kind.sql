-- the key of a kind, which is given one when it has none; at most 256 categories have kinds of
-- their own. the commit is synchronous: readers cache every kind, also one without events.
create or replace function annals.resolve_kind(
    of_type text,
    of_version bigint,
    of_codec text,
    of_category text
) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
    found_category integer;
    found_kind integer;
begin
    perform pg_advisory_xact_lock(1095650894, 'annals.kind'::regclass::oid::integer);
    select key into found_category from annals.category where name = of_category;
    if not found then
        select max(key) + 1 into found_category from annals.category;
        if found_category > 256 then
            found_category := 0;
        else
            insert into annals.category (key, name) values (found_category, of_category);
        end if;
    end if;
    select key into found_kind from annals.kind
    where type = of_type and schema_version = of_version and codec = of_codec
        and category = found_category;
    if not found then
        select max(key) + 1 into found_kind from annals.kind;
        insert into annals.kind (key, type, schema_version, codec, category)
        values (found_kind, of_type, of_version, of_codec, found_category);
    end if;
    return found_kind;
end
$$;
