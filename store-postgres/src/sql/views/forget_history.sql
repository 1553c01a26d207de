-- questions are about this position and later ones from now on; no row when the
-- generation is dropped
update annals.view_generation set history_since = greatest(history_since, $2)
where id = $1 and phase <> 3
