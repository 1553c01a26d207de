-- the views that have a generation that is not dropped, byte by byte
select distinct view from annals.view_generation where phase <> 3 order by view
