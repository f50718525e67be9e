#!/bin/bash
# A SLURM of one node with two processors, without systemd, for the tests here: `slurm.sh up`, `slurm.sh down`.
# For Debian, as root. `down` stops it and removes the packages that `up` has installed.
set -eu
PACKAGES="slurm-wlm munge"
installed=/var/lib/bdlf-slurm-test-packages

up() {
    dpkg-query -W -f '${binary:Package}\n' | sort > "$installed.before"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $PACKAGES
    dpkg-query -W -f '${binary:Package}\n' | sort | comm -13 "$installed.before" - > "$installed"
    mkdir -p /run/munge /var/log/munge /var/lib/munge /var/spool/slurmctld /var/spool/slurmd /var/log/slurm
    chown munge:munge /run/munge /var/log/munge /var/lib/munge
    su -s /bin/sh munge -c /usr/sbin/munged
    local host
    host=$(hostname)
    cat > /etc/slurm/slurm.conf <<EOF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmdLogFile=/var/log/slurm/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=30
MinJobAge=600
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=low Nodes=$host Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=high Nodes=$host Default=NO MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
EOF
    printf 'CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n' > /etc/slurm/cgroup.conf
    slurmctld
    sleep 1
    slurmd
    for _ in $(seq 30); do
        [ "$(sinfo -h -p low -o %T)" = idle ] && return
        sleep 1
    done
    echo "the node does not become idle" >&2
    tail -n 20 /var/log/slurm/*.log >&2
    return 1
}

down() {
    for file in /run/slurmd.pid /run/slurmctld.pid /run/munge/munged.pid; do
        if [ -s "$file" ]; then kill "$(cat "$file")" || true; fi
    done
    sleep 2
    if [ -s "$installed" ]; then
        DEBIAN_FRONTEND=noninteractive xargs -a "$installed" apt-get purge -y -qq
    fi
    rm -rf "$installed" "$installed.before" /etc/slurm /var/spool/slurmctld /var/spool/slurmd /var/log/slurm
}

"$1"
