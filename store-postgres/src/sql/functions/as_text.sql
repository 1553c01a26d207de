-- stored bytes as a reader with psql wants them: JSON as text, everything else in hex
create or replace function annals.as_text(codec text, content bytea) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
begin
    if content is null then
        return null;
    end if;
    if codec = 'json' then
        return convert_from(content, 'UTF8');
    end if;
    return E'\\x' || encode(content, 'hex');
exception when character_not_in_repertoire or untranslatable_character then
    return E'\\x' || encode(content, 'hex');
end
$$;
