#!/usr/bin/env bash
# Sluice on Dataflow: jobs, Flex Templates, and running jobs. This script only turns settings into command lines of `sluice`
# and `gcloud`; pipelines/dataflow/defaults.py decides what a job needs of Dataflow.
set -euo pipefail
((BASH_VERSINFO[0] >= 4)) || { echo "run_dataflow.sh: bash 4 or newer is needed, this is $BASH_VERSION" >&2; exit 2; }
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
  cat <<'TEXT'
usage: run_dataflow.sh COMMAND [settings] [flags]

  batch                            score files or a table
  streaming                        score messages as they arrive
  update                           replace a running streaming job with one that has these flags
  template build batch|streaming   write a Flex Template; --cloud_build builds its image first
  template run batch|streaming     start a job from it
  drain JOB_ID | cancel JOB_ID     end a job; drain finishes its work first, cancel does not
  status [JOB_ID]                  show a job, or the running jobs

Settings are flags (--region=europe-west1) or environment variables (REGION=europe-west1):
  project, region        of the job
  bucket                 for staging, temporary files and templates; without gs://
  job_name               default: made from the model's name and the time; for templates sluice-streaming, sluice-batch-TIME
  machine_type           default: n2-standard-4, or one that fits the GPU
  num_workers, max_num_workers     default: the service's choice, 10
  gpu, gpu_count         e.g. nvidia-tesla-t4; the image must have CUDA (build it with --gpu too)
  sdk_container_image    of the workers; default: none; for templates REGION-docker.pkg.dev/PROJECT/sluice/...
  tag                    of a template and its image; default: latest
  service_account_email, subnetwork
  private_ips            true: workers have no public addresses
  cloud_build            true: template build builds the image first, on Cloud Build
  dry_run                true: print the commands, run nothing
`template run streaming --update` replaces a running job, as update does. SLUICE is the program that submits jobs; default:
.venv/bin/sluice of this checkout, or sluice on PATH.

All other flags go to `sluice batch` or `sluice streaming` (see their --help), or become parameters of the template.
TEXT
}

SETTINGS="project region bucket job_name machine_type num_workers max_num_workers gpu gpu_count sdk_container_image tag
  service_account_email subnetwork private_ips cloud_build dry_run"
SWITCHES=" private_ips cloud_build dry_run "
PROJECT_ID='^([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$'
declare -A value
rest=()

die() {
  echo "run_dataflow.sh: $1" >&2
  exit 2
}

read_settings() { # FLAG...: fills value and rest
  local name upper flag
  for name in $SETTINGS; do
    upper=${name^^}
    value[$name]=${!upper:-}
  done
  while (($#)); do
    flag=$1 && shift
    name=${flag#--} && name=${name%%=*}
    if [[ $flag != --* || " ${SETTINGS//$'\n'/ } " != *" $name "* ]]; then
      rest+=("$flag")
    elif [[ $flag == *=* ]]; then
      value[$name]=${flag#*=}
    elif [[ $SWITCHES == *" $name "* ]]; then
      value[$name]=true
    else
      [[ ${1:---} != --* ]] || die "--$name has no value"
      value[$name]=$1 && shift
    fi
  done
}

check() { # NAME PATTERN EXPECTED: refuses a setting that is given and invalid
  [[ -z ${value[$1]} || ${value[$1]} =~ $2 ]] || die "--$1 ${value[$1]}: $3 is expected"
}

check_flags() { # FLAG...: refuses secrets: they would be visible here, in process lists and in Dataflow
  local flag
  for flag in "$@"; do
    [[ $flag != --rpc_headers=[^@]* && $flag != --rpc_headers ]] ||
      die "--rpc_headers (its value is not shown): give --rpc_headers=@FILE, which keeps secrets out of command lines"
    [[ $flag != --rpc_headers=* || $command != "template run" ]] ||
      die "--rpc_headers is not a parameter of templates: everybody who sees the job sees parameters; use --rpc_google_auth"
  done
}

check_settings() {
  check project "$PROJECT_ID" "the id of a project"
  check region '^[a-z]+-[a-z]+[0-9]+$' "a region such as europe-west1"
  check bucket '^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$' "the name of a bucket, without gs:// and folders,"
  check job_name '^[a-z]([a-z0-9-]*[a-z0-9])?$' "a name of small letters, digits and -, a letter first,"
  check gpu '^nvidia-[a-z0-9-]+$' "a type such as nvidia-tesla-t4"
  check service_account_email '^[^@ ]+@[^@ ]+\.[^@ ]+$' "an e-mail address"
  local name
  for name in num_workers max_num_workers gpu_count; do
    check "$name" '^[1-9][0-9]*$' "a whole number, 1 or more,"
  done
  for name in $SWITCHES; do
    check "$name" '^(true|false)$' "true or false"
  done
}

need() { # NAME...: refuses a command that lacks settings, and names all of them
  local name missing=""
  for name in "$@"; do
    [[ -n ${value[$name]} ]] || missing+=" --$name (or ${name^^})"
  done
  [[ -z $missing ]] || die "$command needs$missing"
}

run() { # COMMAND...: prints it, and runs it unless this is a dry run
  local word line=""
  for word in "$@"; do
    printf -v word '%q' "$word"
    if [[ $word == --* ]]; then line+=$' \\\n  '$word; else line+=${line:+ }$word; fi
  done
  if [[ ${value[dry_run]} == true ]]; then
    echo "$line"
  else
    type -P "$1" >/dev/null || die "$1 is not installed, or not on PATH: docs/dataflow.md lists what is needed"
    echo "$line" >&2
    "$@"
  fi
}

run_sluice() {
  local program=sluice
  [[ ! -x $ROOT/.venv/bin/sluice ]] || program=$ROOT/.venv/bin/sluice
  run "${SLUICE:-$program}" "$@"
}

machine_type() {
  case ${value[machine_type]:-${value[gpu]:-none}} in
  none) echo n2-standard-4 ;;
  nvidia-l4) echo g2-standard-4 ;;
  nvidia-tesla-a100) echo a2-highgpu-1g ;;
  nvidia-tesla-*) echo n1-standard-4 ;;
  nvidia-*) die "--gpu ${value[gpu]} needs --machine_type: a type that has this GPU" ;;
  *) echo "${value[machine_type]}" ;;
  esac
}

accelerator() {
  echo "worker_accelerator=type:${value[gpu]};count:${value[gpu_count]:-1}"
}

job() { # batch|streaming [FLAG...]
  local kind=$1 machine && shift
  need project region bucket
  [[ -z ${value[gpu]} || -n ${value[sdk_container_image]} ]] ||
    die "--gpu needs --sdk_container_image: Beam's own image has no CUDA, and the model would run without the GPU"
  machine=$(machine_type)
  local setting flags=(
    --runner=DataflowRunner "--project=${value[project]}" "--region=${value[region]}"
    "--temp_location=gs://${value[bucket]}/tmp" "--staging_location=gs://${value[bucket]}/staging"
    "--machine_type=$machine" "--max_num_workers=${value[max_num_workers]:-10}"
  )
  for setting in job_name num_workers sdk_container_image service_account_email subnetwork; do
    [[ -z ${value[$setting]} ]] || flags+=("--$setting=${value[$setting]}")
  done
  [[ ${value[private_ips]} != true ]] || flags+=(--no_use_public_ips)
  [[ -z ${value[gpu]} ]] || flags+=("--dataflow_service_options=$(accelerator)")
  run_sluice "$kind" "${flags[@]}" "$@" ${rest[@]+"${rest[@]}"}
}

set_template() { # batch|streaming: sets the image, and the template's path
  [[ $1 == batch || $1 == streaming ]] || die "$command batch|streaming is expected, found '$1'"
  need project region bucket
  value[tag]=${value[tag]:-latest}
  # A domain's project, example.com:id, is example.com/id in the name of an image.
  local image=${value[region]}-docker.pkg.dev/${value[project]/://}/sluice/$1:${value[tag]}
  value[sdk_container_image]=${value[sdk_container_image]:-$image}
  template=gs://${value[bucket]}/templates/sluice-$1-${value[tag]}.json
}

build_template() { # batch|streaming
  set_template "$1"
  ((${#rest[@]} == 0)) || die "$command does not take ${rest[*]}: give the flags of a job to template run"
  local image=${value[sdk_container_image]} metadata=METADATA_FILE
  [[ ${value[cloud_build]} != true ]] || run gcloud builds submit "$ROOT" "--project=${value[project]}" \
    "--region=${value[region]}" "--config=$ROOT/deploy/cloudbuild.yaml" "--ignore-file=$ROOT/.dockerignore" \
    "--substitutions=_IMAGE=$image,_PIPELINE=$1,_VARIANT=$([[ -n ${value[gpu]} ]] && echo gpu || echo cpu)"
  if [[ ${value[dry_run]} != true ]]; then
    metadata=$(mktemp)
    # shellcheck disable=SC2064  # the name as it is now
    trap "rm -f '$metadata'" EXIT
  fi
  run_sluice template metadata "--pipeline=$1" "--image=$image" "--output=$metadata"
  run gcloud dataflow flex-template build "$template" "--project=${value[project]}" "--image=$image" \
    --sdk-language=PYTHON "--metadata-file=$metadata"
}

parameter() { # NAME=VALUE: prints the flag for gcloud, which splits at commas unless it names another separator
  local separator
  if [[ $1 != *,* ]]; then
    echo "--parameters=$1"
    return
  fi
  for separator in '~' ';' '|' '#' '%%' '@@' '::' '++'; do
    if [[ $1 != *"$separator"* ]]; then
      echo "--parameters=^$separator^$1"
      return
    fi
  done
  die "--$1: gcloud needs a separator that the value does not contain; remove one of ~ ; | # %% @@ :: ++ from it"
}

run_template() { # batch|streaming
  set_template "$1"
  local machine setting name=sluice-$1 parameters=() flags i
  machine=$(machine_type)
  [[ $1 == streaming ]] || name+=-$(date +%Y%m%d-%H%M%S)
  flags=(
    "--project=${value[project]}" "--region=${value[region]}" "--template-file-gcs-location=$template"
    "--staging-location=gs://${value[bucket]}/staging" "--temp-location=gs://${value[bucket]}/tmp"
    "--worker-machine-type=$machine" "--max-workers=${value[max_num_workers]:-10}"
  )
  for setting in num_workers service_account_email subnetwork; do
    [[ -z ${value[$setting]} ]] || flags+=("--${setting//_/-}=${value[$setting]}")
  done
  [[ $1 != streaming ]] || flags+=(--enable-streaming-engine)
  [[ ${value[private_ips]} != true ]] || flags+=(--disable-public-ips)
  parameters=("sdk_container_image=${value[sdk_container_image]}")
  [[ -z ${value[gpu]} ]] || parameters+=("dataflow_service_options=$(accelerator)")
  set -- ${rest[@]+"${rest[@]}"}
  while (($#)); do
    [[ $1 == --?* ]] || die "'$1' is not a flag; give parameters as --name=value"
    [[ $1 != --dataflow_service_options* || -z ${value[gpu]} ]] ||
      die "--gpu becomes one of --dataflow_service_options; leave --gpu out and add $(accelerator) to them"
    if [[ $1 == --update || $1 == --update=true ]]; then
      flags+=(--update)
    elif [[ $1 == *=* ]]; then
      parameters+=("${1#--}")
    elif (($# == 1)) || [[ $2 == --* ]]; then
      parameters+=("${1#--}=true")
    else
      parameters+=("${1#--}=$2")
      shift
    fi
    shift
  done
  for i in "${!parameters[@]}"; do
    parameters[i]=$(parameter "${parameters[i]}")
  done
  run gcloud dataflow flex-template run "${value[job_name]:-$name}" "${flags[@]}" "${parameters[@]}"
}

running_job() { # drain|cancel|show
  need project region
  ((${#rest[@]} == 1)) || die "$command needs the id of one job; \`run_dataflow.sh status\` lists running jobs"
  run gcloud dataflow jobs "$1" "${rest[0]}" "--project=${value[project]}" "--region=${value[region]}"
}

list_jobs() {
  need project region
  run gcloud dataflow jobs list --status=active "--project=${value[project]}" "--region=${value[region]}"
}

command=${1:-help}
(($#)) && shift
if [[ $command == template ]]; then
  [[ ${1:-} == build || ${1:-} == run ]] || die "template build or template run is expected, found '${1:-}'"
  command+=" $1"
  pipeline=${2:-}
  shift $(($# < 2 ? $# : 2))
fi
read_settings "$@"
check_settings
check_flags ${rest[@]+"${rest[@]}"}
case $command in
batch | streaming) job "$command" ;;
update) need job_name project region bucket; job streaming --update ;;
"template build") build_template "$pipeline" ;;
"template run") run_template "$pipeline" ;;
drain | cancel) running_job "$command" ;;
status) if ((${#rest[@]})); then running_job show; else list_jobs; fi ;;
help | --help | -h) usage ;;
*) usage >&2 && die "there is no command '$command'" ;;
esac
