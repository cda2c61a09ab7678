#!/usr/bin/env bash
# A real two-host Slurm cluster on one machine (root, Debian): network namespaces n1 and n2 on a bridge, munge,
# slurmctld and one slurmd a host. Proves slurm/train.sbatch: submit, stop by the time limit, requeue, resume, finish; then jobs
# that ask for GPUs, of which each host claims to have two, on the emulated device where it lies beside LAMELLA.
#   tests/slurm/lab.sh LAMELLA WORK      (packages: slurm-wlm munge iproute2; not part of `make test`)
set -euo pipefail
lamella=$(readlink -f "$1")
module=$(dirname "$lamella")/liblamella_cuda_emulated.so
mkdir -p "$2"
work=$(readlink -f "$2")
root=$(cd "$(dirname "$0")/../.." && pwd)
# The hosts see the system and this folder, but not the other folders of /tmp.
mkdir -p "$work/bin"; cp "$lamella" "$work/bin/"; lamella=$work/bin/$(basename "$lamella")
[ ! -f "$module" ] || cp "$module" "$work/bin/emulated.so"
rm -rf "$work/jobs" "$work/configs"; cp -r "$root/slurm" "$work/jobs"; cp -r "$root/configs" "$work/configs"
host=$(hostname)

take_down() {
  set +e
  for file in "$work"/slurm/*.pid; do [ -f "$file" ] && kill "$(cat "$file")" 2>/dev/null; done
  sleep 1
  for i in 1 2; do ip netns del "n$i" 2>/dev/null; ip link del "v$i" 2>/dev/null; done
  ip link del lambr0 2>/dev/null
  sed -i '/# lamella slurm lab$/d' /etc/hosts 2>/dev/null || { sed '/# lamella slurm lab$/d' /etc/hosts > "$work/hosts"; cat "$work/hosts" > /etc/hosts; }
}
trap take_down EXIT
take_down; set -e

ip link add lambr0 type bridge; ip addr add 10.77.0.254/24 dev lambr0; ip link set lambr0 up
for i in 1 2; do
  ip netns add "n$i"
  ip link add "v$i" type veth peer name eth0 netns "n$i"
  ip link set "v$i" master lambr0 up
  ip -n "n$i" addr add "10.77.0.$i/24" dev eth0
  ip -n "n$i" link set eth0 up; ip -n "n$i" link set lo up
  echo "10.77.0.$i n$i # lamella slurm lab" >> /etc/hosts
done
echo "10.77.0.254 $host # lamella slurm lab" >> /etc/hosts

mkdir -p /run/munge; chown munge /run/munge
pgrep -x munged > /dev/null || su -s /bin/sh munge -c /usr/sbin/munged
munge -n | unmunge > /dev/null

rm -rf "$work/slurm"; mkdir -p "$work/slurm/state" "$work/slurm/spool.n1" "$work/slurm/spool.n2"
cat > "$work/slurm/slurm.conf" <<CONF
ClusterName=lamella
SlurmctldHost=$host(10.77.0.254)
AuthType=auth/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$work/slurm/state
SlurmdSpoolDir=$work/slurm/spool.%n
SlurmctldPidFile=$work/slurm/slurmctld.pid
SlurmdPidFile=$work/slurm/slurmd.%n.pid
SlurmctldLogFile=$work/slurm/slurmctld.log
SlurmdLogFile=$work/slurm/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=pmix
GresTypes=gpu
NodeName=n1 NodeHostname=n1 NodeAddr=10.77.0.1 CPUs=2 Gres=gpu:2
NodeName=n2 NodeHostname=n2 NodeAddr=10.77.0.2 CPUs=2 Gres=gpu:2
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
CONF
echo "Name=gpu File=/dev/null,/dev/zero" > "$work/slurm/gres.conf" # files that are there, for two GPUs that are not
export SLURM_CONF=$work/slurm/slurm.conf
slurmctld
for i in 1 2; do
  # A private /tmp a host, or the pmix folders of the two hosts collide; the lab's own folder stays visible.
  nsenter --net="/run/netns/n$i" unshare -m -u sh -c "hostname n$i
    mkdir -p /mnt/lamella-lab && mount --bind '$work' /mnt/lamella-lab
    mount -t tmpfs tmpfs /tmp
    mkdir -p '$work' 2>/dev/null; case '$work' in /tmp/*) mount --bind /mnt/lamella-lab '$work';; esac
    SLURM_CONF='$SLURM_CONF' exec slurmd -N n$i"
done
for _ in $(seq 30); do [ "$(sinfo -h -o %T | sort -u)" = idle ] && break; sleep 1; done
sinfo

cd "$work"
[ -d shards ] || { "$lamella" synth screen --seed 3 --force; "$lamella" pack screen/images.csv --out shards --force; }
rm -rf run reference ./*.log
settings=(data.path="$work/shards" train.steps=200 train.checkpoint_every=50 data.threads=1)
export LAMELLA="$lamella" OMPI_MCA_btl_tcp_if_include=eth0
"$lamella" train "$work/configs/demo.yaml" "${settings[@]}" train.out="$work/reference" train.steps=20 --quiet
job=$(sbatch --parsable --time=00:01:00 --signal=USR1@30 "$work/jobs/train.sbatch" "$work/configs/demo.yaml" \
  "${settings[@]}" train.out="$work/run")
echo "submitted job $job"
for _ in $(seq 1200); do
  state=$(scontrol show job "$job" | sed -nE 's/.*JobState=([A-Z_]+).*/\1/p')
  restarts=$(scontrol show job "$job" | sed -nE 's/.*Restarts=([0-9]+).*/\1/p')
  echo "$(date +%T) $state restarts=$restarts $(cat run/checkpoints/latest 2>/dev/null)"
  case "$state" in COMPLETED) break ;; FAILED | CANCELLED | TIMEOUT | NODE_FAIL) cat ./*.log; exit 1 ;; esac
  sleep 5
done
[ "$state" = COMPLETED ] && [ "$restarts" -ge 1 ]
[ "$(cat run/checkpoints/latest)" = step_00000200 ]
tail -5 ./*.log
grep -q "emulated device" ./*.log && { echo "a job that asked for no GPU took one"; exit 1; }
echo "slurm lab: job $job ran on two hosts, stopped by signal, was requeued $restarts time(s), resumed and finished"

[ -f "$work/bin/emulated.so" ] || { echo "slurm lab: no emulated device, no jobs on GPUs"; exit 0; }
rm -rf few few_shards on_gpus gpus.npy
"$lamella" synth few --genes 4 --guides 1 --replicates 4 --controls 4 --plates 2 --image-size 48 --seed 3 --quiet
"$lamella" pack few/images.csv --out few_shards --quiet
tiny=(data.path="$work/few_shards" data.threads=1 train.steps=4 train.global_batch=8 model.depth=1 model.embed_dim=32
  model.num_heads=2 model.patch_size=8 model.decoder_embed_dim=32 train.out="$work/on_gpus")
submit() { sbatch --wait --parsable --time=00:05:00 --output="$work/$1.log" "${@:2}"; }
export LAMELLA_CUDA_MODULE=$work/bin/emulated.so
submit train --nodes=1 --gpus-per-node=2 --ntasks-per-node=2 --cpus-per-task=1 "$work/jobs/train.sbatch" \
  "$work/configs/demo.yaml" "${tiny[@]}" || { cat train.log; exit 1; }
submit embed --nodes=2 --gpus-per-node=1 "$work/jobs/embed.sbatch" "$work/on_gpus" "$work/few_shards" --level well \
  --out "$work/gpus.npy" || { cat embed.log; exit 1; }
grep -q "cuda, emulated device.*2 ranks\|2 ranks.*cuda, emulated device" train.log && grep -q "emulated device" embed.log &&
  [ -s gpus.npy ] || { cat train.log embed.log; exit 1; }
export LAMELLA_CUDA_MODULE=/nowhere.so
submit without --nodes=1 --gpus-per-node=1 "$work/jobs/embed.sbatch" "$work/on_gpus" "$work/few_shards" --level well \
  --out "$work/gpus.npy" --force && { echo "a job on a GPU that is not there did not fail"; exit 1; }
grep -q "there is no /nowhere.so" without.log || { cat without.log; exit 1; }
echo "slurm lab: two ranks trained and embedded on two GPUs, a job whose GPU cannot be used fails"
