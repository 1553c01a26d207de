-- rows of an index in [entry and key, entry and key), descending
select entries.key, rows.value, entries.entry
from annals_view_entries as entries
cross join annals_view_rows as rows
    on rows.generation = entries.generation and rows.key = entries.key
where entries.generation = ?1 and entries."index" = ?2
    and (entries.entry, entries.key) >= (?3, ?4) and (entries.entry, entries.key) < (?5, ?6)
order by entries.entry desc, entries.key desc
