-- a row stands at this version of its stream from now on
replace into annals_view_stands (generation, key, version) values (?1, ?2, ?3)
