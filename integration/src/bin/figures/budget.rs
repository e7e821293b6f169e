//! How long blocks take, and what is left out so that a run ends in time (`BUDGET`, in minutes).

use crate::{scale, Block, Figure, Plan};

/// The plan of a quick run, of a whole one, or of one that ends in `budget` seconds.
pub fn plan(quick: bool, budget: Option<f64>) -> Plan {
    let mut plan = Plan { quick, share: 1.0 };
    // Less a part for what comes between blocks and isn't in the estimates.
    let Some(limit) = budget.map(|b| b * 0.95) else { return plan };
    while !quick && plan.share > 0.05 && total(&plan) > limit {
        plan.share -= 0.05;
    }
    plan
}

fn total(plan: &Plan) -> f64 {
    crate::blocks(plan).iter().filter(|b| crate::wanted(b)).map(|b| cost(plan, b)).sum()
}

/// Seconds, as seen on the machine of docs/figures (two processors).
pub fn cost(plan: &Plan, block: &Block) -> f64 {
    if plan.quick {
        return 10.0;
    }
    let rounds = |whole, least| f64::from(plan.rounds(whole, least));
    // Without live-restore every container is ended and started again each time.
    let anew = block.name.contains("without live-restore");
    match block.figure {
        Figure::Restore => 45.0 + if anew { 57.0 } else { 12.0 } * rounds(5, 1),
        Figure::Outage => 48.0 + if anew { 120.0 } else { 72.0 } * rounds(3, 1),
        Figure::Launch => 10.0 + 28.0 * rounds(8, 2),
        Figure::ScaleRedis if scale::most(plan, &block.name, "redis") > 100 => 170.0 + 18.0 * rounds(15, 5),
        Figure::ScaleRedis => 35.0 + 7.0 * rounds(15, 5),
        Figure::ScaleTomcat if plan.reduced() => 30.0 + 4.0 * rounds(15, 5),
        Figure::ScaleTomcat => 60.0 + 5.0 * rounds(15, 5),
        Figure::Limits => 80.0,
        Figure::Micro if plan.reduced() => 50.0,
        Figure::Micro => 130.0,
    }
}

/// What was left out, for the tables.
pub fn words(plan: &Plan, budget: Option<f64>) -> String {
    match budget {
        _ if plan.quick => "A quick run of `make figures`: nothing here is a measurement.".into(),
        Some(budget) if plan.reduced() => format!(
            "A run of `make figures BUDGET={:.0}`: {:.0} % of a whole run's repetitions, and {}.",
            budget / 60.0,
            plan.share * 100.0,
            "with more than 100 containers only runc and Hydra, up to 20 of tomcat, the runtimes alone as in `make bench QUICK=1`; \
             second-pass blocks for which no time was left are missing",
        ),
        _ => "A whole run of `make figures`.".into(),
    }
}
