-- says what stands against a step of which more is to come, and holds its generation until the transaction ends
select refusal, owner, number from annals.look_at_step($1, $2, $3, $4, $5, $6, $7, false)
