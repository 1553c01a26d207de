-- every event type
select key, type from annals_kinds
