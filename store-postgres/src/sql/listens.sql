-- says to those who would notify that this session listens, until it ends
select pg_catalog.pg_advisory_lock_shared(
    1095650894, 'annals.event'::pg_catalog.regclass::pg_catalog.oid::pg_catalog.int4
)
