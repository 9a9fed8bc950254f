# An image for nodes that boot from a volume of ebs-bake: Chef's program, the device's name, the line of /etc/fstab. It has no secrets, no
# role and no cookbooks: those come with the user data and the volume.
#
#   packer init . && packer build -var region=eu-central-1 .

packer {
  required_version = ">= 1.10.0"

  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = ">= 1.3.8"
    }
  }
}

variable "region" {
  type        = string
  description = "Where the image is made."
}

variable "instance_type" {
  type        = string
  description = "The machine that makes it: any Nitro type will do."
  default     = "t3.small"
}

variable "name" {
  type        = string
  description = "What the image's name begins with."
  default     = "chef-node"
}

variable "cinc_version" {
  type        = string
  description = "The version of Cinc Client, which is Chef Infra Client without its licence."
  default     = "18"
}

locals {
  image = "${var.name}-${formatdate("YYYYMMDD-hhmmss", timestamp())}"
}

source "amazon-ebs" "node" {
  region        = var.region
  instance_type = var.instance_type
  ami_name      = local.image
  ssh_username  = "admin"

  source_ami_filter {
    filters = {
      name                = "debian-13-amd64-*"
      root-device-type    = "ebs"
      virtualization-type = "hvm"
    }
    owners      = ["136693071363"] # Debian
    most_recent = true
  }

  # Version 2 of the metadata service alone, for the machine that makes the image and for the nodes.
  imds_support = "v2.0"

  metadata_options {
    http_endpoint = "enabled"
    http_tokens   = "required"
  }

  tags = {
    Name = local.image
  }
}

build {
  sources = ["source.amazon-ebs.node"]

  provisioner "shell" {
    script           = "${path.root}/provision.sh"
    environment_vars = ["CINC_VERSION=${var.cinc_version}"]
    execute_command  = "sudo env {{ .Vars }} sh '{{ .Path }}'"
  }
}
