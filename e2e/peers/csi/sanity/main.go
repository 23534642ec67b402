// Command sanity runs the specs of csi-test against a driver, as its own csi-sanity does.
//
// One spec compares two protobuf messages with gomega's Equal, which sees the caches within them: a topology that was
// sent once is not equal to one that was only received. Here every answer is encoded once, so that both have theirs.
package main

import (
	"context"
	"flag"
	"os"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"k8s.io/klog/v2"
)

type result struct{ failed bool }

func (r *result) Fail() { r.failed = true }

func main() {
	config := sanity.NewTestConfig()
	flag.StringVar(&config.Address, "endpoint", "", "the driver's socket")
	flag.StringVar(&config.StagingPath, "staging", "", "path for NodeStageVolume, made by each spec")
	flag.StringVar(&config.TargetPath, "target", "", "path for NodePublishVolume, made by each spec")
	flag.StringVar(&config.TestVolumeAccessType, "access", "mount", "mount or block")
	flag.StringVar(&config.TestVolumeParametersFile, "parameters", "", "YAML file of CreateVolume's parameters")
	flag.StringVar(&config.TestVolumeMutableParametersFile, "mutable-parameters", "", "YAML file of mutable parameters")
	flag.Int64Var(&config.TestVolumeSize, "size", config.TestVolumeSize, "bytes of a volume")
	flag.Int64Var(&config.TestVolumeExpandSize, "expanded-size", config.TestVolumeExpandSize, "bytes of it when it has grown")
	flag.Parse()
	config.TestNodeVolumeAttachLimit = true
	config.DialOptions = append(config.DialOptions, grpc.WithUnaryInterceptor(encodeAnswers))
	klog.SetOutput(ginkgo.GinkgoWriter)
	var outcome result
	sanity.Test(&outcome, config)
	if outcome.failed {
		os.Exit(1)
	}
}

func encodeAnswers(
	ctx context.Context, method string, request, answer any, connection *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption,
) error {
	if err := invoke(ctx, method, request, answer, connection, options...); err != nil {
		return err
	}
	_, err := proto.Marshal(answer.(proto.Message))
	return err
}
