-- commits a step with what its slot keeps for itself, or says why it is refused
select refusal, owner, number
from annals.commit_step_with_state(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10,
    row(
        $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28,
        $29, $30, $31
    )::annals.view_changes,
    $32, $33
)
