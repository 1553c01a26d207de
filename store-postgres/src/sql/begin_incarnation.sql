-- names the incarnation that the server has been in since it recovered, once
select annals.begin_incarnation()
